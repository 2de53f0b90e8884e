package local

import (
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"github.com/meshbench/meshbench"
)

// loopback is the address of everything that is deployed here, but for
// processes that ask for an address of their own: those get others of the
// loopback network, 127.64.0.0/10, which Linux has without any set-up.
const loopback = "127.0.0.1"

// layout is what the infrastructure chose for a Spec: what its templates can
// ask for.
type layout struct {
	ports    map[meshbench.PortRef]int
	dirs     map[string]string // process -> its directory
	hosts    map[string]string // process -> its IP address
	programs map[string]string // runtime -> the path of its program
}

// add takes over what another layout has.
func (l layout) add(o layout) {
	maps.Copy(l.ports, o.ports)
	maps.Copy(l.dirs, o.dirs)
	maps.Copy(l.hosts, o.hosts)
	maps.Copy(l.programs, o.programs)
}

func (l layout) port(process, port string) (int, error) {
	n, ok := l.ports[meshbench.PortRef{Process: process, Port: port}]
	if !ok {
		return 0, meshbench.Errorf(meshbench.NotFound, "no process %q with a port %q is deployed", process, port)
	}
	return n, nil
}

func (l layout) address(process, port string) (string, error) {
	n, err := l.port(process, port)
	if err != nil {
		return "", err
	}
	return net.JoinHostPort(l.hosts[process], strconv.Itoa(n)), nil
}

// dir returns the directory of a process.
func (l layout) dir(process string) (string, error) {
	d, ok := l.dirs[process]
	if !ok {
		return "", meshbench.Errorf(meshbench.NotFound, "no process %q is deployed", process)
	}
	return d, nil
}

// host returns the IP address of a process.
func (l layout) host(process string) (string, error) {
	h, ok := l.hosts[process]
	if !ok {
		return "", meshbench.Errorf(meshbench.NotFound, "no process %q is deployed", process)
	}
	return h, nil
}

// program returns the path of a runtime's program.
func (l layout) program(runtime string) (string, error) {
	p, ok := l.programs[runtime]
	if !ok {
		return "", meshbench.Errorf(meshbench.NotFound, "the runtime %q is not one of this deployment", runtime)
	}
	return p, nil
}

// content returns what is in a file of a process's directory.
func (l layout) content(process, name string) (string, error) {
	dir, err := l.dir(process)
	if err != nil {
		return "", err
	}
	if !filepath.IsLocal(name) {
		return "", meshbench.Errorf(meshbench.Internal, "process %q has no file %q in its directory", process, name)
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	return string(text), err
}

// render fills in a text of a process. where says which text it is, for the
// error.
func (l layout) render(process, where, text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	t, err := template.New(where).Option("missingkey=error").Funcs(template.FuncMap{
		"port":    l.port,
		"address": l.address,
		"host":    l.host,
		// A process asks for its own directory.
		"dir":     func() (string, error) { return l.dir(process) },
		"dirof":   l.dir,
		"program": l.program,
		"content": func(name string) (string, error) { return l.content(process, name) },
	}).Parse(text)
	var b strings.Builder
	if err == nil {
		err = t.Execute(&b, nil)
	}
	if err != nil {
		return "", meshbench.Errorf(meshbench.Internal, "process %q: %w", process, err)
	}
	return b.String(), nil
}

func (l layout) renderAll(process, where string, texts []string) ([]string, error) {
	out := make([]string, len(texts))
	for i, text := range texts {
		var err error
		if out[i], err = l.render(process, where, text); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// validate finds what no infrastructure could deploy. Such a Spec is a fault
// of whoever rendered it.
func validate(spec meshbench.Spec) error {
	fault := func(format string, args ...any) error {
		return meshbench.Errorf(meshbench.Internal, "the specification cannot be deployed: "+format, args...)
	}
	if len(spec.Processes) == 0 {
		return fault("it has no process")
	}
	seen := map[string]bool{}
	entry := false
	for _, p := range spec.Processes {
		if !plainName(p.Name) {
			return fault("%q cannot be the name of a process", p.Name)
		}
		if seen[p.Name] {
			return fault("process %q is there twice", p.Name)
		}
		seen[p.Name] = true
		for i, port := range p.Ports {
			if slices.Contains(p.Ports[:i], port) {
				return fault("process %q has port %q twice", p.Name, port)
			}
			entry = entry || spec.Entry == meshbench.PortRef{Process: p.Name, Port: port}
		}
		for _, f := range p.Files {
			if !filepath.IsLocal(f.Name) || f.Name == "." {
				return fault("process %q has a file %q outside of its directory", p.Name, f.Name)
			}
		}
	}
	if !entry && spec.Entry != (meshbench.PortRef{}) {
		return fault("its entry, port %q of process %q, is none of its ports", spec.Entry.Port, spec.Entry.Process)
	}
	return nil
}

// plainName tells whether a name can be that of a directory as it is.
func plainName(name string) bool { return name != "" && name == fileName(name) && name[0] != '.' }

// fileName makes a name that a file can have: "envoy/rate=200" becomes
// "envoy_rate=200".
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("-_.@=#+", r):
			return r
		}
		return '_'
	}, name)
}
