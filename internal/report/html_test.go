package report_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/report"
)

func page(t *testing.T, r meshbench.Result) (*html.Node, string) {
	t.Helper()
	var b bytes.Buffer
	if err := report.HTML(&b, r); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(bytes.NewReader(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return root, b.String()
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func walk(n *html.Node, f func(*html.Node) bool) {
	if !f(n) {
		return
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		walk(c, f)
	}
}

func innerText(n *html.Node) string {
	var b strings.Builder
	walk(n, func(n *html.Node) bool {
		if n.Type == html.TextNode {
			b.WriteString(n.Data + " ")
		}
		return n.Data != "svg"
	})
	return strings.Join(strings.Fields(b.String()), " ")
}

func within(n *html.Node, tag string) bool {
	for p := n.Parent; p != nil; p = p.Parent {
		if p.Type == html.ElementNode && p.Data == tag {
			return true
		}
	}
	return false
}

// structure outlines a page: sections, headings, rows of charts with their
// figures, the size of tables, and what each picture is made of.
func structure(root *html.Node) string {
	var b strings.Builder
	depth := func(n *html.Node) string {
		d := 0
		for p := n.Parent; p != nil; p = p.Parent {
			if p.Data == "section" || p.Data == "details" || p.Data == "header" || p.Data == "svg" {
				d++
			}
		}
		return strings.Repeat("  ", d)
	}
	walk(root, func(n *html.Node) bool {
		if n.Type != html.ElementNode {
			return true
		}
		in := depth(n)
		switch n.Data {
		case "style", "pre":
			return false
		case "header", "section":
			fmt.Fprintf(&b, "%s%s #%s\n", in, n.Data, attr(n, "id"))
		case "h1", "h2", "h3", "summary", "p", "li", "dt":
			fmt.Fprintf(&b, "%s%s: %s\n", in, n.Data, innerText(n))
		case "table":
			rows, cells := 0, 0
			walk(n, func(n *html.Node) bool {
				switch n.Data {
				case "tr":
					rows++
				case "th", "td":
					cells++
				}
				return true
			})
			fmt.Fprintf(&b, "%stable: %d rows, %d cells\n", in, rows, cells)
			return false
		case "div":
			if slices.Contains(strings.Fields(attr(n, "class")), "row") {
				fmt.Fprintf(&b, "%srow: %s\n", in, innerText(n))
			}
		case "svg":
			counts := map[string]int{}
			walk(n, func(e *html.Node) bool {
				if e.Type == html.ElementNode && e != n && e.Data != "title" {
					counts[e.Data+"."+strings.ReplaceAll(attr(e, "class"), " ", ".")]++
				}
				return true
			})
			var parts []string
			for k, v := range counts {
				parts = append(parts, fmt.Sprintf("%d %s", v, k))
			}
			slices.Sort(parts)
			fmt.Fprintf(&b, "%spicture .%s: %s\n", in, attr(n, "class"), strings.Join(parts, ", "))
			if l := attr(n, "aria-label"); l != "" {
				fmt.Fprintf(&b, "%s  says: %s\n", in, l)
			}
			return false
		}
		return true
	})
	return b.String()
}

func TestHTMLStructure(t *testing.T) {
	for name, r := range map[string]meshbench.Result{"sample": sample(t), "invalid": invalid(t), "interrupted": interrupted(t), "empty": {}} {
		root, _ := page(t, r)
		golden(t, name+".html.txt", []byte(structure(root)))
	}
}

// A report is opened years later, on a train, and by people who do not trust
// it: it must not load, run or reach anything.
func TestHTMLNeedsNothingElse(t *testing.T) {
	for name, r := range map[string]meshbench.Result{"sample": sample(t), "hostile": hostile(t)} {
		root, text := page(t, r)
		for _, w := range []string{"url(", "@import", "<script", "javascript:"} {
			if name == "sample" && strings.Contains(text, w) {
				t.Errorf("%s: the page contains %q", name, w)
			}
		}
		ids := map[string]bool{}
		walk(root, func(n *html.Node) bool {
			if n.Type != html.ElementNode {
				return true
			}
			switch n.Data {
			case "script", "img", "link", "iframe", "object", "embed", "a", "base", "form", "image", "use":
				t.Errorf("%s: the page has an element %s", name, n.Data)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || slices.Contains([]string{"src", "href", "style", "srcset", "action"}, a.Key) {
					t.Errorf("%s: %s has the attribute %s", name, n.Data, a.Key)
				}
				if a.Key == "id" {
					if ids[a.Val] {
						t.Errorf("%s: the id %q is there twice", name, a.Val)
					}
					ids[a.Val] = true
				}
			}
			return true
		})
	}
}

func TestHTMLIsAccessible(t *testing.T) {
	for name, r := range map[string]meshbench.Result{"sample": sample(t), "interrupted": interrupted(t), "hostile": hostile(t)} {
		root, _ := page(t, r)
		ids := map[string]bool{}
		walk(root, func(n *html.Node) bool {
			ids[attr(n, "id")] = true
			return true
		})
		walk(root, func(n *html.Node) bool {
			if n.Type != html.ElementNode {
				return true
			}
			switch n.Data {
			case "svg":
				if within(n, "svg") {
					break
				}
				if attr(n, "aria-hidden") != "true" && (attr(n, "role") != "img" || attr(n, "aria-label") == "") {
					t.Errorf("%s: a picture (%s) neither says what it shows nor is hidden from a screen reader", name, attr(n, "class"))
				}
			case "th":
				if attr(n, "scope") == "" {
					t.Errorf("%s: a table head has no scope", name)
				}
			case "table":
				if attr(n.Parent, "tabindex") != "0" || attr(n.Parent, "aria-label") == "" {
					t.Errorf("%s: a table that may scroll cannot be reached by keyboard", name)
				}
			case "section":
				if by := attr(n, "aria-labelledby"); by != "" && !ids[by] {
					t.Errorf("%s: section %s is labelled by %s, which does not exist", name, attr(n, "id"), by)
				}
			}
			return true
		})
	}
}

// Every chart has its figures behind it.
func TestChartsHaveTables(t *testing.T) {
	root, _ := page(t, sample(t))
	for _, id := range []string{"overhead", "spectrum", "cost", "sittings", "generator", "trials"} {
		found, tables, pictures := false, 0, 0
		walk(root, func(n *html.Node) bool {
			if n.Data != "section" || attr(n, "id") != id {
				return true
			}
			found = true
			walk(n, func(n *html.Node) bool {
				if n.Type == html.ElementNode && n.Data == "table" && within(n, "details") {
					tables++
				}
				if n.Type == html.ElementNode && n.Data == "svg" {
					pictures++
				}
				return true
			})
			return false
		})
		if !found || tables == 0 || pictures == 0 {
			t.Errorf("section %s: found %v, %d pictures, %d tables", id, found, pictures, tables)
		}
	}
}

// What a name contains is shown, and does nothing.
func TestHostileNames(t *testing.T) {
	r := hostile(t)
	root, _ := page(t, r)
	if h := innerText(root); !strings.Contains(h, "<script>alert(1)</script><img src=x onerror=alert(1)>") {
		t.Error("the name does not appear as text")
	}
	inert := func(name string, b []byte) {
		for _, c := range string(b) {
			if c != '\n' && (c < ' ' || c == '\u202e' || c == 0x7f) {
				t.Errorf("%s: control character %U gets through", name, c)
				return
			}
		}
	}
	inert("table", table(t, r, report.TableOptions{}))
	var b bytes.Buffer
	if err := report.Markdown(&b, r); err != nil {
		t.Fatal(err)
	}
	inert("markdown", b.Bytes())
	pipes := 0 // of the rows of the table before
	for i, line := range strings.Split(b.String(), "\n") {
		if strings.Contains(line, "<") || strings.Contains(line, "](") {
			t.Errorf("markdown line %d is markup: %s", i+1, line)
		}
		n := 0
		if strings.HasPrefix(line, "|") {
			n = strings.Count(line, "|") - strings.Count(line, `\|`)
		}
		if n > 0 && pipes > 0 && n != pipes {
			t.Errorf("markdown line %d has another number of columns than the one above: %s", i+1, line)
		}
		pipes = n
	}
	b.Reset()
	if err := report.JUnit(&b, r); err != nil {
		t.Fatal(err)
	}
	inert("junit", bytes.ReplaceAll(b.Bytes(), []byte("\u202e"), nil)) // XML carries it; no terminal shows it
}
