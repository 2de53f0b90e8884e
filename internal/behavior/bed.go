package behavior

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

// The services of every deployment; load enters by Echo.
const (
	Echo  = "echo"
	Other = "echo-v2"
)

const (
	httpPort    = "http"
	controlPort = "control"
)

// services are those of a ground.
func services(g Ground) []meshbench.Service {
	instances := func(name string, n int) meshbench.Service {
		s := meshbench.Service{Name: name}
		for i := range n {
			s.Instances = append(s.Instances, meshbench.PortRef{Process: processName(name, i), Port: httpPort})
		}
		return s
	}
	n := 1
	if g == Pair {
		n = 2
	}
	return []meshbench.Service{instances(Echo, n), instances(Other, 1)}
}

func processName(service string, instance int) string {
	if instance == 0 {
		return service
	}
	return service + "-" + strconv.Itoa(instance+1)
}

// applications are the processes of services: Meshbench itself, as "workload
// probe" (package origin).
func applications(services []meshbench.Service) []meshbench.Process {
	var out []meshbench.Process
	for _, s := range services {
		for i, at := range s.Instances {
			out = append(out, meshbench.Process{
				Name: at.Process, Role: meshbench.Application, Service: s.Name, Instance: i,
				Runtime: meshbench.Self,
				Args: []string{
					"workload", "probe",
					"--listen", `{{address "` + at.Process + `" "` + httpPort + `"}}`,
					"--control", `{{address "` + at.Process + `" "` + controlPort + `"}}`,
					"--service", s.Name, "--instance", strconv.Itoa(i),
				},
				Ports:    []string{httpPort, controlPort},
				ReadyURL: `http://{{address "` + at.Process + `" "` + controlPort + `"}}` + origin.ReadyPath,
			})
		}
	}
	return out
}

// Bed is a deployed subject that probes work on.
type Bed struct {
	on      infra.Infrastructure // for this bed alone
	up      infra.Deployment
	driver  mesh.Driver
	request mesh.Request // without policies
	http    *http.Client
	applied bool  // policies are in force
	broken  bool  // it must not be used again
	kept    *Conn // on an Orphan: opened while the control plane lived
}

var keys atomic.Uint64

// Key returns a name for the requests of one probe that no other has.
func (b *Bed) Key() string { return "k" + strconv.FormatUint(keys.Add(1), 10) }

// Apply makes these policies the ones that are in force; none takes all back.
func (b *Bed) Apply(ctx context.Context, policies ...meshbench.Policy) error {
	r := b.request
	r.Policies = policies
	b.applied = len(policies) > 0
	if err := b.driver.Configure(ctx, b.up, r); err != nil {
		return fmt.Errorf("the policies were not taken: %w", err)
	}
	return nil
}

// Script tells all instances of the services (both, where none is named) how to
// answer the requests of a key.
func (b *Bed) Script(ctx context.Context, key string, answers []origin.Answer, of ...string) error {
	data, err := json.Marshal(origin.Script{Answers: answers})
	if err != nil {
		return err
	}
	for _, s := range b.request.Services {
		for i := range s.Instances {
			if len(of) > 0 && !slices.Contains(of, s.Name) && !slices.Contains(of, processName(s.Name, i)) {
				continue
			}
			if _, err := b.control(ctx, s.Instances[i].Process, http.MethodPut, origin.ScriptPath+"?key="+url.QueryEscape(key), data); err != nil {
				return err
			}
		}
	}
	return nil
}

// Records are the requests of a key that arrived at any application, in order
// of time.
func (b *Bed) Records(ctx context.Context, key string) ([]origin.Record, error) {
	var all []origin.Record
	for _, s := range b.request.Services {
		for _, at := range s.Instances {
			data, err := b.control(ctx, at.Process, http.MethodGet, origin.RecordsPath+"?key="+url.QueryEscape(key), nil)
			if err != nil {
				return nil, err
			}
			var some []origin.Record
			if err := json.Unmarshal(data, &some); err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
	}
	slices.SortStableFunc(all, func(a, b origin.Record) int { return cmp.Compare(a.At, b.At) })
	return all, nil
}

// Settled reads the records until there are n of them, or until a while has
// passed: what comes later than its answer needs it (a copy, an abandonment).
func (b *Bed) Settled(ctx context.Context, key string, enough func([]origin.Record) bool) ([]origin.Record, error) {
	deadline := time.Now().Add(5 * time.Second)
	for {
		records, err := b.Records(ctx, key)
		if err != nil || enough(records) || time.Now().After(deadline) {
			return records, err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// Restart ends an application as a roll-out does, in order, and starts it
// again after a pause.
func (b *Bed) Restart(ctx context.Context, process string, pause time.Duration) error {
	_, err := b.control(ctx, process, http.MethodPost, origin.RestartPath+"?ms="+strconv.FormatInt(pause.Milliseconds(), 10), nil)
	return err
}

func (b *Bed) control(ctx context.Context, process, method, path string, body []byte) ([]byte, error) {
	address, err := b.up.Address(process, controlPort)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+address+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := b.http.Do(request)
	if err != nil {
		return nil, fmt.Errorf("the application %s cannot be asked: %w", process, err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("the application %s says %s: %s", process, answer.Status, data)
	}
	return data, err
}

// entry is where requests go in: host:port.
func (b *Bed) entry() (string, error) {
	u, err := url.Parse(b.up.Target().URL)
	if err != nil {
		return "", err
	}
	return u.Host, nil
}

// host is the Host field that requests need.
func (b *Bed) host() string {
	if t := b.up.Target(); t.Host != "" {
		return t.Host
	}
	address, _ := b.entry()
	return address
}

// Dial opens a connection to where requests go in.
func (b *Bed) Dial(ctx context.Context) (*Conn, error) {
	address, err := b.entry()
	if err != nil {
		return nil, err
	}
	return dial(ctx, address, nil)
}

// Do sends a request over a connection of its own.
func (b *Bed) Do(ctx context.Context, r Request) Answer { return b.Raw(ctx, r.text(b.host())) }

// Raw sends bytes over a connection of its own and reads one answer.
func (b *Bed) Raw(ctx context.Context, text string) Answer {
	c, err := b.Dial(ctx)
	if err != nil {
		return Answer{Err: err}
	}
	defer c.Close()
	return c.Do(text)
}

// Ask sends a request and returns its answer and what arrived for it.
func (b *Bed) Ask(ctx context.Context, r Request) (Answer, []origin.Record, error) {
	if r.Key == "" {
		r.Key = b.Key()
	}
	a := b.Do(ctx, r)
	records, err := b.Records(ctx, r.Key)
	return a, records, err
}

// Many sends a request n times, over a few connections that are kept, and
// counts the answers by status; 0 stands for none.
func (b *Bed) Many(ctx context.Context, n int, r Request) map[int]int {
	const connections = 4
	statuses := make(chan int, n)
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	text := r.text(b.host())
	for range connections {
		go func() {
			var c *Conn
			defer func() {
				if c != nil {
					c.Close()
				}
			}()
			for range work {
				if c == nil {
					var err error
					if c, err = b.Dial(ctx); err != nil {
						c = nil
						statuses <- 0
						continue
					}
				}
				a := c.Do(text)
				statuses <- a.Status
				if a.Err != nil || strings.EqualFold(a.Get("Connection"), "close") {
					c.Close()
					c = nil
				}
			}
		}()
	}
	out := map[int]int{}
	for range n {
		out[<-statuses]++
	}
	return out
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// canned is an answer with a status and a body.
func canned(status int, body string) origin.Answer {
	return rawAnswer(fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), len(body), body))
}

func rawAnswer(text string) origin.Answer {
	return origin.Answer{Pieces: []origin.Piece{{Text: text}}}
}

func field(name, value string) []wire.Field { return []wire.Field{{Name: name, Value: value}} }
