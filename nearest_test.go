package meshbench

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"rate", "arrivals", "connections", "timeout", "max"}
	for _, c := range []struct{ written, want string }{
		{"conections", "connections"}, {"connection", "connections"}, {"arivals", "arrivals"}, {"tiemout", "timeout"},
		{"raet", "rate"}, {"rates", "rate"}, {"mx", "max"}, {"Rate", "rate"},
		{"xyz", ""}, {"", ""}, {"conn", ""}, {"rrrr", ""}, {"größe", ""},
	} {
		got, ok := Nearest(c.written, words)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%q: %q, %v; want %q", c.written, got, ok, c.want)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"ca", "ac", 1}, {"ca", "abc", 3}, {"kitten", "sitting", 3}, {"straße", "strasse", 2}} {
		if d := distance(c.a, c.b); d != c.want || distance(c.b, c.a) != c.want {
			t.Errorf("%q to %q is %d, want %d", c.a, c.b, d, c.want)
		}
	}
	if _, ok := Nearest("x", nil); ok {
		t.Error("found a word in none")
	}
}
