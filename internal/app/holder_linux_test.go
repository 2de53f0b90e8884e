package app

import (
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestGone(t *testing.T) {
	self := holder()
	if gone(self) {
		t.Errorf("%s lives", self)
	}
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	words := strings.Split(self, "/")
	for name, c := range map[string]struct {
		change func(w []string)
		gone   bool
	}{
		"a process that has ended": {func(w []string) { w[2] = strconv.Itoa(ended.Process.Pid) }, true},
		"its number taken anew":    {func(w []string) { w[3] = "1" }, true},
		"an earlier boot":          {func(w []string) { w[1] = "another" }, true},
		"another machine":          {func(w []string) { w[0] += "x" }, false},
		"unknown start":            {func(w []string) { w[3] = "0" }, false},
		"no number":                {func(w []string) { w[2] = "one" }, false},
	} {
		w := strings.Split(self, "/")
		c.change(w)
		if got := gone(strings.Join(w, "/")); got != c.gone {
			t.Errorf("%s: gone %v", name, got)
		}
	}
	for _, other := range []string{"", "host", words[0] + "/" + strconv.Itoa(os.Getpid())} {
		if gone(other) {
			t.Errorf("%q is not of this form, and gone", other)
		}
	}
}
