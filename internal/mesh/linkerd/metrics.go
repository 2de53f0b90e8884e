package linkerd

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// maxAdminBytes bounds what is read of an answer of a proxy's admin port.
const maxAdminBytes = 16 << 20

// get asks the admin port of a proxy.
func (d Driver) get(ctx context.Context, access mesh.Access, process, path string) ([]byte, error) {
	at, err := access.Address(process, adminPort)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := d.http.Do(request)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin port does not answer: %w", process, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAdminBytes))
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin port broke off: %w", process, err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, meshbench.Errorf(meshbench.Unavailable, "%s: the admin port answers %d to %s", process, response.StatusCode, path)
	}
	return body, nil
}

func (d Driver) metrics(ctx context.Context, access mesh.Access, process string) (samples, error) {
	body, err := d.get(ctx, access, process, "/metrics")
	if err != nil {
		return nil, err
	}
	s, err := parseSamples(body)
	if err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: its metrics cannot be read: %w", process, err)
	}
	return s, nil
}

// environ is the environment that a proxy says it has.
func (d Driver) environ(ctx context.Context, access mesh.Access, process string) (map[string]string, error) {
	body, err := d.get(ctx, access, process, "/env.json")
	if err != nil {
		return nil, err
	}
	var out map[string]string
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, meshbench.Errorf(meshbench.Internal, "%s: its environment cannot be read: %w", process, err)
	}
	return out, nil
}

// sample is a line of Prometheus' text format.
type sample struct {
	name   string
	labels map[string]string
	value  float64
}

type samples []sample

// sum adds up the samples of a name whose labels have all the given values.
// Values are counts: not negative, and whole.
func (s samples) sum(name string, labels map[string]string) uint64 {
	total := 0.0
next:
	for _, x := range s {
		if x.name != name {
			continue
		}
		for k, v := range labels {
			if x.labels[k] != v {
				continue next
			}
		}
		total += x.value
	}
	if total < 0 || math.IsNaN(total) {
		return 0
	}
	return uint64(total)
}

// first returns the labels of the first sample of a name.
func (s samples) first(name string) map[string]string {
	for _, x := range s {
		if x.name == name {
			return x.labels
		}
	}
	return nil
}

// parseSamples reads Prometheus' text exposition format, version 0.0.4
// (Prometheus' documentation, "Exposition formats"): comments are left out,
// timestamps are not looked at.
func parseSamples(text []byte) (samples, error) {
	var out samples
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		x, err := parseSample(line)
		if err != nil {
			return nil, fmt.Errorf("%w: %.80q", err, line)
		}
		out = append(out, x)
	}
	return out, lines.Err()
}

var errNoSample = fmt.Errorf("not a line of metrics")

func parseSample(line string) (sample, error) {
	end := strings.IndexAny(line, "{ \t")
	if end <= 0 {
		return sample{}, errNoSample
	}
	x := sample{name: line[:end], labels: map[string]string{}}
	rest := line[end:]
	if rest[0] == '{' {
		var err error
		if rest, err = parseLabels(rest[1:], x.labels); err != nil {
			return sample{}, err
		}
	}
	fields := strings.Fields(rest)
	if len(fields) == 0 || len(fields) > 2 {
		return sample{}, errNoSample
	}
	value, err := strconv.ParseFloat(fields[0], 64)
	if err != nil {
		return sample{}, errNoSample
	}
	x.value = value
	return x, nil
}

// parseLabels reads up to the closing brace and returns what is behind it.
func parseLabels(text string, into map[string]string) (rest string, err error) {
	for {
		text = strings.TrimLeft(text, " \t,")
		if strings.HasPrefix(text, "}") {
			return text[1:], nil
		}
		name, after, ok := strings.Cut(text, "=")
		after, quoted := strings.CutPrefix(strings.TrimLeft(after, " \t"), `"`)
		if !ok || !quoted || strings.ContainsAny(name, "{}\"") {
			return "", errNoSample
		}
		var value strings.Builder
		i := 0
		for ; i < len(after) && after[i] != '"'; i++ {
			if after[i] == '\\' && i+1 < len(after) {
				i++
				if after[i] == 'n' {
					value.WriteByte('\n')
					continue
				}
			}
			value.WriteByte(after[i])
		}
		if i == len(after) {
			return "", errNoSample
		}
		into[strings.TrimSpace(name)] = value.String()
		text = after[i+1:]
	}
}
