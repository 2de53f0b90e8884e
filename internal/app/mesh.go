package app

import (
	"slices"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/builtin"
)

// ShowRequest is what a mesh's own configuration is asked for.
type ShowRequest struct {
	Subject  string // mesh[@version][:option=value]...
	Profile  meshbench.Profile
	Services []string // the first calls the others; empty: those that the policies name
	Policies []meshbench.Policy
}

// Shown is what policies become on a mesh.
type Shown struct {
	Subject   meshbench.Subject
	Documents []mesh.Document
	// Unsupported is why: of a kind that the mesh does not have, or of a policy
	// that wants more of its kind than the mesh has.
	Unsupported []mesh.Capability
}

// Show returns a mesh's own configuration for policies, and what the mesh
// cannot do of them. Nothing is started.
func (a *App) Show(r ShowRequest) (Shown, error) {
	subject, err := meshbench.ParseSubject(r.Subject)
	if err != nil {
		return Shown{}, err
	}
	driver, err := driverOf(subject)
	if err != nil {
		return Shown{}, err
	}
	out := Shown{Subject: subject, Unsupported: mesh.Unsupported(mesh.DescribeSubject(driver, subject), r.Policies)}
	request := mesh.Request{
		Subject: subject, Profile: r.Profile, Threads: 1,
		Services: shownServices(r.Services, r.Policies),
	}
	// What makes no sense is a mistake whether the mesh could do it or not.
	request.Policies = r.Policies
	if _, err := mesh.Combine(request); err != nil {
		return Shown{}, err
	}
	request.Policies = slices.DeleteFunc(slices.Clone(r.Policies), func(p meshbench.Policy) bool {
		kind, err := p.Kind()
		return err == nil && slices.ContainsFunc(out.Unsupported, func(c mesh.Capability) bool { return c.Policy == kind })
	})
	if len(request.Policies) == 0 && len(out.Unsupported) > 0 {
		return out, nil // nothing is left that could become anything
	}
	if out.Documents, err = driver.Show(request); err == nil || meshbench.AsError(err).Code != meshbench.Invalid {
		return out, err
	}
	// The mesh has all of the kinds, but not all that these policies want of
	// them. Those that it cannot carry out even by themselves are left out.
	var rest []meshbench.Policy
	for _, p := range request.Policies {
		alone := request
		alone.Policies = []meshbench.Policy{p}
		_, err := driver.Show(alone)
		if e := meshbench.AsError(err); e != nil && e.Code == meshbench.Invalid {
			kind, _ := p.Kind()
			out.Unsupported = append(out.Unsupported, mesh.Capability{Policy: kind, Note: e.Message, Source: e.Hint})
			continue
		}
		rest = append(rest, p)
	}
	if len(rest) == len(request.Policies) {
		return out, err // each could be carried out, but not all together
	}
	if len(rest) == 0 {
		return out, nil
	}
	request.Policies = rest
	out.Documents, err = driver.Show(request)
	return out, err
}

// driverOf returns the driver of a subject that has all that the subject asks
// for. A subject that does not exist is a mistake of who wrote it: the error
// has the code Invalid.
func driverOf(s meshbench.Subject) (mesh.Driver, error) {
	driver, err := builtin.Find(s.Mesh)
	if err == nil {
		err = mesh.Check(driver.Describe(), s)
	}
	if err != nil {
		wrong := *meshbench.AsError(err)
		wrong.Code = meshbench.Invalid
		return nil, &wrong
	}
	return driver, nil
}

// shownServices are services of one instance each, of which the first calls
// the others.
func shownServices(names []string, policies []meshbench.Policy) []meshbench.Service {
	if len(names) == 0 {
		for _, p := range policies {
			for _, n := range mesh.Mentioned(p) {
				if !slices.Contains(names, n) {
					names = append(names, n)
				}
			}
		}
	}
	if len(names) == 0 {
		names = []string{"echo"}
	}
	var out []meshbench.Service
	for _, n := range names {
		out = append(out, meshbench.Service{Name: n, Instances: []meshbench.PortRef{{Process: n, Port: "http"}}})
	}
	out[0].Calls = slices.Clone(names[1:])
	return out
}
