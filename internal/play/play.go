// Package play is the playground: a sample application on a mesh, which people
// change by policies and watch. It outlives the command that started it: a
// process of its own holds it (Serve), and the commands talk to that (Client).
package play

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/deploy"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

// Config is what a playground is made of.
type Config struct {
	Infra    infra.Infrastructure
	Driver   mesh.Driver
	Workload deploy.Workload
	Subject  meshbench.Subject
	Profile  meshbench.Profile
	Work     meshbench.Workload
	Now      func() time.Time
}

// Playground is one that is up. Its methods may be called at the same time;
// changes are made one after the other.
type Playground struct {
	config Config
	up     infra.Deployment
	client *http.Client
	since  time.Time

	mu      sync.Mutex
	request mesh.Request
}

// Up deploys the subject with the workload and returns when requests go
// through. On error nothing is left.
func Up(ctx context.Context, c Config) (*Playground, error) {
	p := &Playground{
		config: c, since: c.Now(),
		request: mesh.Request{Subject: c.Subject, Profile: c.Profile, Workload: c.Work},
		client: &http.Client{
			Transport:     &http.Transport{MaxIdleConnsPerHost: 4},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	var err error
	p.up, err = deploy.Up(ctx, c.Infra, c.Driver, c.Workload, &p.request)
	return p, err
}

// Close ends it and removes what it made.
func (p *Playground) Close(ctx context.Context) error {
	p.client.CloseIdleConnections()
	return p.up.Close(ctx)
}

// Applied is what a change of the policies came to.
type Applied struct {
	Policies  []meshbench.Policy `json:"policies"`
	Documents []mesh.Document    `json:"documents"` // the mesh's own configuration
	Took      meshbench.Duration `json:"took"`      // until the proxies had it
}

// Apply makes policies those that are in force, in place of all before; none
// takes everything back. Where the mesh refuses them, what was in force stays.
func (p *Playground) Apply(ctx context.Context, policies []meshbench.Policy) (Applied, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := p.request
	next.Policies = policies
	documents, err := p.config.Driver.Show(next)
	if err != nil {
		return Applied{}, err
	}
	begun := p.config.Now()
	if err := p.config.Driver.Configure(ctx, p.up, next); err != nil {
		return Applied{}, err
	}
	p.request = next
	return Applied{Policies: notNil(policies), Documents: notNil(documents), Took: meshbench.Duration(p.config.Now().Sub(begun))}, nil
}

// Status is what a playground looks like at a moment.
type Status struct {
	Subject   meshbench.Subject   `json:"subject"`
	Workload  string              `json:"workload"`
	Since     time.Time           `json:"since"`
	URL       string              `json:"url"`            // where requests enter
	Host      string              `json:"host,omitempty"` // Host header to send with them
	Services  []ServiceStatus     `json:"services"`
	Processes []ProcessStatus     `json:"processes"`
	Hops      []HopStatus         `json:"hops"`
	Policies  []meshbench.Policy  `json:"policies"`
	Settings  []meshbench.Setting `json:"settings"`
	Problem   string              `json:"problem,omitempty"` // what died, with its log's last lines
}

// ServiceStatus is one service of the sample application.
type ServiceStatus struct {
	Name      string   `json:"name"`
	Instances int      `json:"instances"`
	Calls     []string `json:"calls"`
	Requests  uint64   `json:"requests"` // received so far
	PeerName  string   `json:"peer_name,omitempty"`
}

// ProcessStatus is one process.
type ProcessStatus struct {
	Name        string         `json:"name"`
	Role        meshbench.Role `json:"role"`
	Service     string         `json:"service,omitempty"`
	Alive       bool           `json:"alive"`
	CPUSeconds  float64        `json:"cpu_seconds"` // since its start
	MemoryBytes uint64         `json:"memory_bytes"`
}

// HopStatus is what the proxies of a hop have counted so far.
type HopStatus struct {
	From       string `json:"from"`
	To         string `json:"to"`
	Requests   uint64 `json:"requests"` // at the receiver's proxy
	Handshakes uint64 `json:"handshakes"`
	Plaintext  uint64 `json:"plaintext"`
}

// Status looks at everything. What cannot be read is left out, and Problem
// says why.
func (p *Playground) Status(ctx context.Context) Status {
	p.mu.Lock()
	request := p.request
	p.mu.Unlock()
	target := p.up.Target()
	s := Status{
		Subject: request.Subject, Workload: request.Workload.Name, Since: p.since, URL: target.URL, Host: target.Host,
		Services: []ServiceStatus{}, Processes: []ProcessStatus{}, Hops: []HopStatus{},
		Policies: notNil(request.Policies), Settings: []meshbench.Setting{},
	}
	problem := func(err error) {
		if err != nil && s.Problem == "" {
			s.Problem = err.Error()
		}
	}
	problem(p.up.Check())
	for _, service := range request.Services {
		seen, err := p.up.Seen(ctx, service.Name)
		problem(err)
		s.Services = append(s.Services, ServiceStatus{
			Name: service.Name, Instances: len(service.Instances), Calls: notNil(service.Calls), Requests: seen.Requests, PeerName: seen.PeerName,
		})
	}
	usage, err := p.up.Usage(ctx)
	problem(err)
	for _, u := range usage {
		s.Processes = append(s.Processes, ProcessStatus{
			Name: u.Process, Role: u.Role, Service: u.Service, Alive: u.Alive,
			CPUSeconds: float64(u.UserNanos+u.SystemNanos) / 1e9, MemoryBytes: u.AnonBytes,
		})
	}
	hops, err := p.config.Driver.Counters(ctx, p.up, request)
	problem(err)
	for _, h := range hops {
		s.Hops = append(s.Hops, HopStatus{From: h.From, To: h.To, Requests: h.ServerReceived, Handshakes: h.Handshakes, Plaintext: h.Plaintext})
	}
	settings, err := p.config.Driver.Settings(ctx, p.up, request)
	problem(err)
	s.Settings = append(s.Settings, settings...)
	return s
}

// Sending is what to send by hand.
type Sending struct {
	Method  string             `json:"method"`
	Path    string             `json:"path"`
	Headers map[string]string  `json:"headers,omitempty"`
	Body    string             `json:"body,omitempty"`
	Count   int                `json:"count"`
	Rate    float64            `json:"rate"` // per second; 0: one after the other
	Timeout meshbench.Duration `json:"timeout"`
	// Plain leaves out the header that asks every service on the way to say
	// what it received.
	Plain bool `json:"plain"`
}

// The bounds of one sending: a playground is no place for a load test.
const (
	maxCount = 10000
	maxRate  = 200
	maxBody  = 64 << 10
)

// Sent is what came back.
type Sent struct {
	Count    int            `json:"count"`
	Statuses map[string]int `json:"statuses"` // "200" -> how many; an error's words where there was no answer
	Services map[string]int `json:"services"` // who answered on the way, one for each request that it got
	// Times from sending to the last byte, of all that were answered.
	P50  meshbench.Microseconds `json:"p50_us"`
	P90  meshbench.Microseconds `json:"p90_us"`
	Max  meshbench.Microseconds `json:"max_us"`
	Last Answer                 `json:"last"`
}

// Answer is one answer, for people to look at.
type Answer struct {
	Status  string              `json:"status"`
	Headers map[string][]string `json:"headers"`
	Body    string              `json:"body"` // its beginning
}

// Send sends requests to where load enters and tells what came back. Errors
// of code Invalid say which bound was passed.
func (p *Playground) Send(ctx context.Context, s Sending) (Sent, error) {
	switch {
	case s.Count < 1 || s.Count > maxCount:
		return Sent{}, meshbench.Errorf(meshbench.Invalid, "count is %d, and must be from 1 to %d", s.Count, maxCount).WithHint("measure with meshbench run or meshbench load")
	case s.Rate < 0 || s.Rate > maxRate:
		return Sent{}, meshbench.Errorf(meshbench.Invalid, "rate is %g, and must be from 0 to %d requests per second", s.Rate, maxRate).WithHint("measure with meshbench run or meshbench load")
	case len(s.Body) > maxBody:
		return Sent{}, meshbench.Errorf(meshbench.Invalid, "the body has %d bytes, and may have %d", len(s.Body), maxBody)
	case s.Timeout <= 0:
		return Sent{}, meshbench.Errorf(meshbench.Invalid, "the timeout must be above 0")
	}
	out := Sent{Statuses: map[string]int{}, Services: map[string]int{}}
	var times []time.Duration
	begun := p.config.Now()
	for i := range s.Count {
		if s.Rate > 0 {
			due := begun.Add(time.Duration(float64(i) / s.Rate * float64(time.Second)))
			select {
			case <-time.After(due.Sub(p.config.Now())):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		sent := p.config.Now()
		answer, services, err := p.send(ctx, s)
		out.Count++
		if err != nil {
			out.Statuses[reason(err)]++
			continue
		}
		times = append(times, p.config.Now().Sub(sent))
		out.Statuses[answer.Status]++
		for _, name := range services {
			out.Services[name]++
		}
		out.Last = answer
	}
	slices.Sort(times)
	if n := len(times); n > 0 {
		us := func(d time.Duration) meshbench.Microseconds {
			return meshbench.Microseconds(float64(d.Nanoseconds()) / 1000)
		}
		out.P50, out.P90, out.Max = us(times[n/2]), us(times[n*9/10]), us(times[n-1])
	}
	return out, nil
}

// maxAnswer bounds what is read of an answer that is looked into.
const maxAnswer = 1 << 20

// send returns the answer, and the services that say they had a part in it.
func (p *Playground) send(ctx context.Context, s Sending) (Answer, []string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout.Std())
	defer cancel()
	target := p.up.Target()
	request, err := http.NewRequestWithContext(ctx, s.Method, target.URL+s.Path, body(s.Body))
	if err != nil {
		return Answer{}, nil, err
	}
	request.Host = target.Host
	if !s.Plain {
		request.Header.Set(meshbench.ReflectHeader, "all")
	}
	for name, value := range s.Headers {
		request.Header.Set(name, value)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return Answer{}, nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err == nil {
		_, err = io.Copy(io.Discard, response.Body)
	}
	var said meshbench.Reflection
	var services []string
	if !s.Plain && json.Unmarshal(text, &said) == nil {
		services = onTheWay(said)
	}
	return Answer{Status: response.Status, Headers: response.Header, Body: string(text)}, services, err
}

func onTheWay(r meshbench.Reflection) []string {
	if r.Service == "" {
		return nil
	}
	out := []string{r.Service}
	for _, c := range r.Calls {
		if c.Answer != nil {
			out = append(out, onTheWay(*c.Answer)...)
		}
	}
	return out
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func body(text string) io.Reader {
	if text == "" {
		return nil
	}
	return strings.NewReader(text)
}

// reason names why there was no answer, without the URL that every request has.
func reason(err error) string {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "timed out"
	}
	return err.Error()
}
