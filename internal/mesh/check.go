package mesh

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
)

// Check tells whether a subject asks only for what the mesh has: a version
// and options of its description. The error has the code NotFound for a
// version and Invalid for an option, and its hint names the nearest word.
func Check(d Description, s meshbench.Subject) error {
	if _, err := Version(d, s.Version); err != nil {
		return err
	}
	var known []string
	for _, o := range d.Options {
		known = append(known, o.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Options)) {
		i := slices.Index(known, name)
		if i < 0 {
			err := meshbench.Errorf(meshbench.Invalid, "subject %s: %s has no option %q", s, d.Title, name)
			if len(known) == 0 {
				return err.WithHint("%s has no options", d.Title)
			}
			return err.WithHint("%s", Suggest(name, known))
		}
		if values := d.Options[i].Values; !slices.Contains(values, s.Options[name]) {
			return meshbench.Errorf(meshbench.Invalid, "subject %s: %q is no value of option %s", s, s.Options[name], name).
				WithHint("%s", Suggest(s.Options[name], values))
		}
	}
	return nil
}

// Version returns the exact version that is meant: the first of the
// description where nothing was asked for, and the newest patch where only
// its beginning was ("1.40" means 1.40.0). A mesh without versions has the
// version "".
func Version(d Description, asked string) (string, error) {
	if asked == "" {
		if len(d.Versions) == 0 {
			return "", nil
		}
		return d.Versions[0], nil
	}
	for _, v := range d.Versions {
		if v == asked || strings.HasPrefix(v, asked+".") {
			return v, nil
		}
	}
	err := meshbench.Errorf(meshbench.NotFound, "%s has no version %q", d.Title, asked)
	if len(d.Versions) == 0 {
		return "", err.WithHint("write %s alone", d.Name)
	}
	return "", err.WithHint("did you mean %s? there are: %s", nearestVersion(asked, d.Versions), strings.Join(d.Versions, ", "))
}

// Suggest says what there is, and which of it was probably meant.
func Suggest(written string, words []string) string {
	there := "there are: " + strings.Join(words, ", ")
	if near, ok := meshbench.Nearest(written, words); ok {
		return "did you mean " + near + "? " + there
	}
	return there
}

// nearestVersion compares versions as lists of numbers, as many as were
// written, so that 1.41 is nearest to 1.40 and not to 1.4. Of equally near
// ones it takes the first. What is no number is compared as a word.
func nearestVersion(written string, versions []string) string {
	want, ok := numbers(written)
	if near, found := meshbench.Nearest(written, versions); !ok && found {
		return near
	}
	best, least := versions[0], []int(nil)
	for _, v := range versions {
		have, ok := numbers(v)
		if !ok {
			continue
		}
		away := make([]int, len(want))
		for i := range away {
			away[i] = want[i] - at(have, i)
			away[i] = max(away[i], -away[i])
		}
		if least == nil || slices.Compare(away, least) < 0 {
			best, least = v, away
		}
	}
	return best
}

func at(list []int, i int) int {
	if i < len(list) {
		return list[i]
	}
	return 0
}

// numbers reads "v1.40.0" as 1, 40, 0.
func numbers(version string) ([]int, bool) {
	var out []int
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
}

// CheckRequest tells whether a driver of this version can render r: Check,
// and a profile that the mesh has, services that fit together, and at least
// one thread.
func CheckRequest(d Description, r Request) error {
	if err := Check(d, r.Subject); err != nil {
		return err
	}
	if !slices.Contains(d.Profiles, r.Profile) {
		return meshbench.Errorf(meshbench.Invalid, "%s has no profile %q", d.Title, r.Profile)
	}
	if err := checkServices(r.Services); err != nil {
		return err
	}
	if r.Threads < 1 {
		return meshbench.Errorf(meshbench.Invalid, "a proxy cannot run with %d threads", r.Threads)
	}
	return nil
}

// checkServices tells whether services have names of their own, instances,
// and calls that lead somewhere.
func checkServices(services []meshbench.Service) error {
	if len(services) == 0 {
		return meshbench.Errorf(meshbench.Invalid, "there is no service for requests to go to")
	}
	names := map[string]bool{}
	for _, s := range services {
		switch {
		case !serviceName.MatchString(s.Name):
			return meshbench.Errorf(meshbench.Invalid, "the service name %q is not made of a-z, 0-9 and inner hyphens", s.Name)
		case s.Name == Client:
			return meshbench.Errorf(meshbench.Invalid, "a service cannot be called %s: that is who sends the load", Client)
		case names[s.Name]:
			return meshbench.Errorf(meshbench.Invalid, "two services are called %q", s.Name)
		case len(s.Instances) == 0:
			return meshbench.Errorf(meshbench.Invalid, "service %s has no instance", s.Name)
		}
		names[s.Name] = true
	}
	for _, s := range services {
		for _, c := range s.Calls {
			if !names[c] || c == s.Name {
				return meshbench.Errorf(meshbench.Invalid, "service %s calls %q, which is no other service", s.Name, c)
			}
		}
	}
	return nil
}

// serviceName is what a service may be called: it becomes part of the names
// of processes and hosts.
var serviceName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`)
