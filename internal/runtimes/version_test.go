package runtimes

import (
	"strings"
	"testing"
)

func TestParseVersion(t *testing.T) {
	for text, want := range map[string]string{
		"1": "1", "1.40": "1.40", "1.40.0": "1.40.0", "v1.40.0": "1.40.0", "01.2": "1.2",
		"1.41.0-dev": "1.41.0-dev", "1.36.2-rc.1+b": "1.36.2-rc.1+b",
		"": "", "v": "", ".": "", "1.": "", "1..2": "", "1.2.3.4": "", "-1": "", "+1": "", "1.-2": "",
		"1.40.x": "", "latest": "", "1.40-": "", "1.40-a b": "", "1.36.2.post1": "", "1.1234567": "", "١.٢": "",
		strings.Repeat("1", 65): "",
	} {
		v, ok := parseVersion(text)
		if got := v.String(); ok != (want != "") || ok && got != want {
			t.Errorf("parseVersion(%q) = %q, %v, want %q", text, got, ok, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, seed := range []string{"1.40.0", "v1.40", "1.41.0-dev", "1.36.2.post1", "", "-", "999999.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, ok := parseVersion(text)
		if !ok {
			return
		}
		again, ok := parseVersion(v.String())
		if !ok || again != v {
			t.Errorf("%q was read as %+v, and written as %q as %+v, %v", text, v, v.String(), again, ok)
		}
		if !v.matches(v) || compareVersions(v, v) != 0 {
			t.Errorf("%v does not match itself", v)
		}
	})
}

func TestParseReport(t *testing.T) {
	for output, want := range map[string]string{
		"\nenvoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n\n": "1.40.0",
		"/opt/1.38.3/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL":                               "1.40.0",
		"/opt/version:1.1.1/envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL":                        "1.40.0",
		"envoy  version: 0/1.41.0-dev/Modified/DEBUG/BoringSSL":                                         "1.41.0-dev",
		"pip 23.0.1 from /usr/lib/python3/dist-packages/pip (python 3.11)":                              "23.0.1",
		"Consul v1.21.4\nRevision 4a42a7b":                                                              "1.21.4",
		"envoy  version: 0//Clean":                                                                      "",
		"1.40":                                                                                          "", "": "", "command not found": "", "10.0.0.1": "",
	} {
		v, ok := parseReport(output)
		if got := v.String(); ok != (want != "") || ok && got != want {
			t.Errorf("parseReport(%q) = %q, %v, want %q", output, got, ok, want)
		}
	}
}

func FuzzParseReport(f *testing.F) {
	f.Add("\nenvoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL\n")
	f.Add("pip 23.0.1 from /usr/lib/python3/dist-packages/pip (python 3.11)")
	f.Add("version:version:1.2.3")
	f.Fuzz(func(t *testing.T, output string) {
		if v, ok := parseReport(output); ok && (v.parts != 3 || !strings.Contains(output, ".")) {
			t.Errorf("%q has the version %v", output, v)
		}
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		whole, wish string
		want        bool
	}{
		{"1.40.0", "1.40.0", true}, {"1.40.0", "1.40", true}, {"1.40.0", "1", true},
		{"1.40.0", "1.4", false}, {"1.40.1", "1.40.0", false}, {"2.40.0", "1", false},
		{"1.40.0-dev", "1.40.0", false}, {"1.40.0-dev", "1.40", false}, {"1.40.0-dev", "1.40.0-dev", true},
	} {
		whole, _ := parseVersion(c.whole)
		wish, _ := parseVersion(c.wish)
		if got := whole.matches(wish); got != c.want {
			t.Errorf("%s matches %s: %v", c.whole, c.wish, got)
		}
	}
}

func TestParseRef(t *testing.T) {
	for ref, want := range map[string][2]string{
		"envoy": {"envoy", ""}, "envoy@1.40": {"envoy", "1.40"}, "": {}, "@1": {}, "envoy@": {},
	} {
		name, version, err := ParseRef(ref)
		if [2]string{name, version} != want || (err != nil) != (want[0] == "") {
			t.Errorf("ParseRef(%q) = %q, %q, %v", ref, name, version, err)
		}
	}
}
