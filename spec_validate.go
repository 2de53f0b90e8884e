package meshbench

import (
	"io"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// specName is what a process or a port may be called: it becomes part of
// directory names and of host names.
var specName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)

// Validate tells what is wrong with s before anything is started: names that
// are not unique, roles that do not exist, files outside their directory, and
// templates that do not parse or that name a port which no process declares.
// The error has the code Invalid.
func (s Spec) Validate() error {
	if len(s.Processes) == 0 {
		return Errorf(Invalid, "the spec has no process")
	}
	ports := map[PortRef]bool{}
	names := map[string]bool{}
	for _, p := range s.Processes {
		if !specName.MatchString(p.Name) {
			return Errorf(Invalid, "process name %q is not made of a-z, 0-9 and inner hyphens", p.Name)
		}
		if names[p.Name] {
			return Errorf(Invalid, "two processes are called %q", p.Name)
		}
		names[p.Name] = true
		for _, port := range p.Ports {
			ref := PortRef{Process: p.Name, Port: port}
			if !specName.MatchString(port) {
				return Errorf(Invalid, "process %s: port name %q is not made of a-z, 0-9 and inner hyphens", p.Name, port)
			}
			if ports[ref] {
				return Errorf(Invalid, "process %s: two ports are called %q", p.Name, port)
			}
			ports[ref] = true
		}
	}
	for _, p := range s.Processes {
		if err := p.validate(ports); err != nil {
			return err
		}
	}
	if err := s.validateNamespaces(names, ports); err != nil {
		return err
	}
	if !ports[s.Entry] {
		return Errorf(Invalid, "the entry is port %q of process %q, which is not declared", s.Entry.Port, s.Entry.Process)
	}
	return nil
}

func (s Spec) validateNamespaces(processes map[string]bool, ports map[PortRef]bool) error {
	names, taken := map[string]bool{}, map[string]bool{}
	for _, n := range s.Namespaces {
		if !specName.MatchString(n.Name) || names[n.Name] {
			return Errorf(Invalid, "the name of namespace %q is not made of a-z, 0-9 and inner hyphens, or is there twice", n.Name)
		}
		names[n.Name] = true
		for _, p := range n.Processes {
			if !processes[p] || taken[p] {
				return Errorf(Invalid, "namespace %s: process %q does not exist, or is in a namespace already", n.Name, p)
			}
			taken[p] = true
		}
		if n.Through == n.Name || n.Through != "" && !slices.ContainsFunc(s.Namespaces, func(o Namespace) bool { return o.Name == n.Through }) {
			return Errorf(Invalid, "namespace %s: what comes to it cannot go through %q", n.Name, n.Through)
		}
		r := n.Redirect
		if r == nil {
			continue
		}
		if !slices.Contains(n.Processes, r.Proxy) {
			return Errorf(Invalid, "namespace %s: its proxy %q is not in it", n.Name, r.Proxy)
		}
		refs := slices.Clone(r.Direct)
		for _, port := range append([]string{r.Inbound, r.Outbound}, r.Services...) {
			refs = append(refs, PortRef{Process: r.Proxy, Port: port})
		}
		for _, ref := range refs {
			if !ports[ref] {
				return Errorf(Invalid, "namespace %s: port %q of process %q is not declared", n.Name, ref.Port, ref.Process)
			}
		}
	}
	return nil
}

func (p Process) validate(ports map[PortRef]bool) error {
	if !slices.Contains(Roles, p.Role) {
		return Errorf(Invalid, "process %s: role %q does not exist", p.Name, p.Role)
	}
	if p.Instance < 0 {
		return Errorf(Invalid, "process %s: instance %d is negative", p.Name, p.Instance)
	}
	name, version, at := strings.Cut(p.Runtime, "@")
	if name == "" || at == (p.Runtime == Self) || at && version == "" {
		return Errorf(Invalid, "process %s: runtime %q is neither %s nor name@version", p.Name, p.Runtime, Self)
	}
	for _, e := range p.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return Errorf(Invalid, "process %s: environment %q is not of the form NAME=value", p.Name, name)
		}
	}
	files := map[string]bool{}
	for _, f := range p.Files {
		if f.Name == "" || path.IsAbs(f.Name) || path.Clean(f.Name) != f.Name || f.Name == "." || strings.HasPrefix(f.Name, "..") {
			return Errorf(Invalid, "process %s: file %q is not a clean path below its directory", p.Name, f.Name)
		}
		if files[f.Name] {
			return Errorf(Invalid, "process %s: two files are called %q", p.Name, f.Name)
		}
		files[f.Name] = true
		if err := p.try("file "+f.Name, f.Text, ports); err != nil {
			return err
		}
	}
	for what, texts := range map[string][]string{"argument": p.Args, "environment": p.Env, "ready URL": {p.ReadyURL}} {
		for _, text := range texts {
			if err := p.try(what, text, ports); err != nil {
				return err
			}
		}
	}
	return nil
}

// try renders a template with numbers made up. The text itself stays out of
// the error: it may be secret.
func (p Process) try(what, text string, ports map[PortRef]bool) error {
	port := func(process, name string) (int, error) {
		if !ports[PortRef{Process: process, Port: name}] {
			return 0, Errorf(Invalid, "port %q of process %q is not declared", name, process)
		}
		return 1, nil
	}
	t, err := template.New(what).Option("missingkey=error").Funcs(template.FuncMap{
		"port": port,
		"address": func(process, name string) (string, error) {
			n, err := port(process, name)
			return net.JoinHostPort("127.0.0.1", strconv.Itoa(n)), err
		},
		"host":    func(string) string { return "127.0.0.1" },
		"dir":     func() string { return "." },
		"dirof":   func(string) string { return "." },
		"program": func(string) string { return "program" },
		"content": func(string) string { return "" },
	}).Parse(text)
	if err == nil {
		err = t.Execute(io.Discard, nil)
	}
	if err != nil {
		return Errorf(Invalid, "process %s, %s: %w", p.Name, what, err)
	}
	return nil
}
