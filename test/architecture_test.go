package test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/meshbench/meshbench"

// pkg is what `go list -json` tells of a package.
type pkg struct {
	ImportPath string
	Imports    []string
	Standard   bool
}

// rule says what packages under From must not import. Except lists prefixes
// under From for which it does not hold.
type rule struct {
	from, except []string
	forbidden    func(from, imported string) bool
	why          string
}

func under(prefixes ...string) func(string, string) bool {
	return func(_, imported string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return imported == p || strings.HasPrefix(imported, p+"/") })
	}
}

// siblings forbids imports between different folders below a common one;
// allowed are those that are no driver and no infrastructure of their own.
func siblings(parent string, allowed ...string) func(string, string) bool {
	folder := func(path string) string {
		rest, ok := strings.CutPrefix(path, parent+"/")
		if !ok {
			return ""
		}
		first, _, _ := strings.Cut(rest, "/")
		return first
	}
	return func(from, imported string) bool {
		f, i := folder(from), folder(imported)
		return f != "" && i != "" && f != i && !slices.Contains(allowed, i)
	}
}

func in(paths ...string) []string {
	for i, p := range paths {
		paths[i] = module + "/internal/" + p
	}
	return paths
}

// rules are those of docs/architecture.md.
func rules() []rule {
	all := []string{module}
	thirdParty := func(_, imported string) bool { return strings.Contains(strings.SplitN(imported, "/", 2)[0], ".") }
	return []rule{
		{from: in("stats"), forbidden: func(_, i string) bool { return strings.HasPrefix(i, module+"/") || thirdParty("", i) }, why: "stats is pure"},
		{from: in("load"), forbidden: func(_, i string) bool {
			return strings.HasPrefix(i, module+"/internal/") && !strings.HasPrefix(i, module+"/internal/load") && i != module+"/internal/histogram"
		}, why: "the generator imports no other family"},
		{from: in("mesh"), except: in("mesh/builtin"), forbidden: siblings(module+"/internal/mesh", "meshtest"), why: "no driver imports another"},
		{from: in("infra"), forbidden: siblings(module+"/internal/infra", "process", "infratest"), why: "no infrastructure imports another"},
		{from: in("mesh"), forbidden: under(in("infra")...), why: "no driver imports an infrastructure"},
		{from: in("infra"), forbidden: under(in("mesh")...), why: "no infrastructure imports a driver"},
		{from: in("runner"), forbidden: under(in("infra/local", "infra/endpoint", "mesh/envoy", "mesh/none", "mesh/builtin", "store/sqlstore", "load/worker", "app", "cli")...), why: "the runner sees interfaces only"},
		{from: in("behavior"), forbidden: func(_, i string) bool {
			return strings.HasPrefix(i, module+"/internal/") && !slices.ContainsFunc([]string{"behavior", "mesh", "infra", "pki"}, func(p string) bool {
				return i == module+"/internal/"+p || strings.HasPrefix(i, module+"/internal/behavior/")
			})
		}, why: "the probes see interfaces only"},
		{from: all, except: in("store/sqlstore"), forbidden: under("database/sql", "modernc.org/sqlite", "github.com/pressly/goose/v3"), why: "SQL only in sqlstore"},
		{from: all, except: in("cli"), forbidden: under("github.com/spf13/cobra"), why: "cobra only in cli"},
		{from: all, except: in("mesh/envoy"), forbidden: under("github.com/envoyproxy/go-control-plane"), why: "Envoy's API only in its driver"},
		{from: all, except: in("mesh/linkerd"), forbidden: under("github.com/linkerd/linkerd2-proxy-api"), why: "Linkerd's API only in its driver"},
		{from: all, except: in("mesh/envoy", "mesh/linkerd"), forbidden: under("google.golang.org/grpc"), why: "gRPC only in drivers that speak it"},
		{from: all, except: in("infra/local"), forbidden: under("github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/google/nftables"), why: "namespaces only in the infrastructure that makes them"},
		{from: all, except: in("runtimes"), forbidden: under("github.com/google/go-containerregistry"), why: "images only in runtimes"},
		{from: all, forbidden: under("github.com/hashicorp/consul"), why: "Consul is run, never linked: its licence"},
		{from: all, except: in("app", "cli"), forbidden: under(in("mesh/builtin", "store/sqlstore", "app")...), why: "concrete things are named in app alone"},
	}
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Standard", "./...")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

// broken lists the imports that break a rule.
func broken(all []pkg) []string {
	var out []string
	for _, p := range all {
		if p.ImportPath == module {
			for _, i := range p.Imports {
				if strings.Contains(strings.SplitN(i, "/", 2)[0], ".") {
					out = append(out, p.ImportPath+" imports "+i+": the vocabulary imports the standard library only")
				}
			}
		}
		for _, r := range rules() {
			if !under(r.from...)("", p.ImportPath) || under(r.except...)("", p.ImportPath) {
				continue
			}
			for _, i := range p.Imports {
				if r.forbidden(p.ImportPath, i) {
					out = append(out, p.ImportPath+" imports "+i+": "+r.why)
				}
			}
		}
	}
	return out
}

func TestArchitecture(t *testing.T) {
	all := packages(t)
	if len(all) < 10 {
		t.Fatalf("only %d packages were found", len(all))
	}
	for _, b := range broken(all) {
		t.Error(b)
	}
}

// TestArchitectureCheckCanFail breaks each kind of rule on purpose.
func TestArchitectureCheckCanFail(t *testing.T) {
	for _, p := range []pkg{
		{ImportPath: module, Imports: []string{"golang.org/x/sys/unix"}},
		{ImportPath: module + "/internal/stats", Imports: []string{module}},
		{ImportPath: module + "/internal/load/worker", Imports: []string{module + "/internal/telemetry"}},
		{ImportPath: module + "/internal/mesh/envoy", Imports: []string{module + "/internal/mesh/none"}},
		{ImportPath: module + "/internal/infra/local", Imports: []string{module + "/internal/infra/endpoint"}},
		{ImportPath: module + "/internal/mesh/none", Imports: []string{module + "/internal/infra/local"}},
		{ImportPath: module + "/internal/runner", Imports: []string{module + "/internal/store/sqlstore"}},
		{ImportPath: module + "/internal/behavior", Imports: []string{module + "/internal/mesh/envoy"}},
		{ImportPath: module + "/internal/report", Imports: []string{"database/sql"}},
		{ImportPath: module + "/internal/report", Imports: []string{"github.com/spf13/cobra"}},
		{ImportPath: module + "/internal/report", Imports: []string{"google.golang.org/grpc"}},
		{ImportPath: module + "/internal/app", Imports: []string{"github.com/google/go-containerregistry/pkg/name"}},
		{ImportPath: module + "/internal/mesh/consul", Imports: []string{"github.com/hashicorp/consul/api"}},
		{ImportPath: module + "/internal/mesh/none", Imports: []string{"github.com/linkerd/linkerd2-proxy-api/go/inbound"}},
		{ImportPath: module + "/internal/mesh/linkerd", Imports: []string{"github.com/vishvananda/netlink"}},
	} {
		if len(broken([]pkg{p})) == 0 {
			t.Errorf("%s may import %v", p.ImportPath, p.Imports)
		}
	}
}
