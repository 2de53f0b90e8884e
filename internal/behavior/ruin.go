package behavior

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
)

const (
	envoyFlags   = "Envoy, response flags: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags"
	envoyEvents  = "Envoy, eventual consistency: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations"
	spiffeRotate = "SPIFFE Workload API, section 5.2.1: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE_Workload_API.md"
)

// orphaned is what was left in force before the control plane was killed.
var orphaned = meshbench.Policy{To: Echo, Headers: &meshbench.HeadersPolicy{Request: &meshbench.HeaderChange{Set: map[string]string{"x-orphan": "yes"}}}}

// orphan opens a connection, puts a policy in force where it can, and kills
// the control plane.
func (b *Bed) orphan(ctx context.Context) error {
	for _, c := range mesh.DescribeSubject(b.driver, b.request.Subject).Capabilities {
		if c.Policy == meshbench.PolicyHeaders && c.Supported {
			if err := b.Apply(ctx, orphaned); err != nil && meshbench.AsError(err).Code != meshbench.Invalid {
				return err
			}
		}
	}
	b.applied = false // nobody could take it back
	c, err := b.Dial(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	b.kept = c
	if a := c.Do(Request{}.text(b.host())); a.Status != 200 {
		return fmt.Errorf("the first request: %s", a)
	}
	if err := b.up.Signal(ctx, meshbench.ControlPlane, 0, infra.Kill); err != nil {
		return err
	}
	return b.awaitDeath(ctx)
}

// awaitDeath waits until something of the deployment is known to have died.
func (b *Bed) awaitDeath(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for b.up.Check() == nil {
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("what was killed still lives: %w", err)
		}
	}
	return nil
}

// load sends a request again and again over a few connections until stop, and
// returns the answers by status.
func (b *Bed) load(ctx context.Context, r Request, during func() error) (map[int]int, error) {
	stop := make(chan error, 1)
	go func() { stop <- during() }()
	out := map[int]int{}
	for {
		for status, n := range b.Many(ctx, 20, r) {
			out[status] += n
		}
		select {
		case err := <-stop:
			for status, n := range b.Many(ctx, 20, r) {
				out[status] += n
			}
			return out, err
		default:
			if err := sleep(ctx, 5*time.Millisecond); err != nil {
				return out, err
			}
		}
	}
}

func total(statuses map[int]int) int {
	n := 0
	for _, k := range statuses {
		n += k
	}
	return n
}

func ruinProbes() []Probe {
	patient := meshbench.Policy{To: Echo, Timeout: &meshbench.TimeoutPolicy{Request: ms(700)}}
	orphans := func(p Probe, policies ...meshbench.PolicyKind) Probe {
		p.Ground, p.Policies = Orphan, policies
		p.Needs |= Proxy | ControlPlane
		return p
	}
	rolling := under(custom("failure.rolling_restart", "Is no request lost while the two instances of an application restart one after the other?",
		"all are answered with 200", gepRetry,
		func(ctx context.Context, b *Bed) (Finding, error) {
			statuses, err := b.load(ctx, Request{}, func() error {
				for i := range 2 {
					if err := b.Restart(ctx, processName(Echo, i), 500*time.Millisecond); err != nil {
						return err
					}
					if err := sleep(ctx, 300*time.Millisecond); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return Finding{}, err
			}
			n := total(statuses)
			return decide(statuses[200] == n, "sent: GETs over 4 connections while each instance is gone for 500 ms, retry on connection failures; lost: %d; answers other than 200: %s", n-statuses[200], tally(except(statuses, 200)))
		}), retry(3, 0, meshbench.RetryOnConnectFailure, meshbench.RetryOnReset, meshbench.RetryOn5xx))
	rolling.Ground = Pair
	killed := withProxy(custom("failure.proxy_killed", "What does a client get when the server's proxy was killed?", "503 at once", envoyFlags,
		func(ctx context.Context, b *Bed) (Finding, error) {
			if err := b.up.Signal(ctx, meshbench.ServerProxy, 0, infra.Kill); err != nil {
				return Finding{}, err
			}
			if err := b.awaitDeath(ctx); err != nil {
				return Finding{}, err
			}
			a := b.Do(ctx, Request{})
			return decide(a.Status == 503, "sent: GET after the server's proxy was killed; seen: %s", withoutAddresses(a))
		}))
	killed.Ground = Ruin
	hung := under(custom("failure.proxy_hangs", "Does a timeout end what hangs in the server's proxy, and does it go on afterwards?", "504, then 200 once the proxy goes on", gepTimeout,
		func(ctx context.Context, b *Bed) (Finding, error) {
			b.Do(ctx, Request{}) // connections are there
			if err := b.up.Signal(ctx, meshbench.ServerProxy, 0, infra.Stop); err != nil {
				return Finding{}, err
			}
			a := b.Do(ctx, Request{})
			if err := b.up.Signal(ctx, meshbench.ServerProxy, 0, infra.Continue); err != nil {
				return Finding{}, err
			}
			var after Answer
			for range 50 { // the stopped proxy has some catching up to do
				if after = b.Do(ctx, Request{}); after.Status == 200 {
					break
				}
				if err := sleep(ctx, 100*time.Millisecond); err != nil {
					return Finding{}, err
				}
			}
			return decide(a.Status == 504 && after.Status == 200, "sent: GET with timeout 700 ms while the server's proxy is stopped: %s; after it went on: %s", a, after)
		}), patient)
	hung.Ground = Ruin
	return []Probe{
		withProxy(custom("failure.application_gone", "What does a client get when the application does not listen?", "503", envoyFlags,
			func(ctx context.Context, b *Bed) (Finding, error) {
				gone, _, err := b.absence(ctx)
				if err != nil {
					return Finding{}, err
				}
				return decide(gone.Status == 503, "sent: GET while the application's port is closed; seen: %s", withoutAddresses(gone))
			})),
		withProxy(custom("failure.application_back", "Do requests pass again as soon as the application listens again?", "the first request after it is answered with 200", envoyFlags,
			func(ctx context.Context, b *Bed) (Finding, error) {
				_, back, err := b.absence(ctx)
				if err != nil {
					return Finding{}, err
				}
				return decide(back.Status == 200, "sent: GET once the application listens again; seen: %s", withoutAddresses(back))
			})),
		rolling, killed, hung,
		{
			Name: "certificates.rotation", Question: "Is no request lost while certificates are replaced?", Expected: "all are answered with 200", Reference: spiffeRotate,
			Needs: Proxy | Rotation,
			// Consul spreads new certificates over half a minute, three times.
			Time: 3 * time.Minute,
			Run: func(ctx context.Context, b *Bed) (Finding, error) {
				rotator, ok := b.driver.(mesh.Rotator)
				if !ok {
					return Finding{}, fmt.Errorf("the driver rotates nothing")
				}
				statuses, err := b.load(ctx, Request{}, func() error {
					for range 3 {
						if err := rotator.Rotate(ctx, b.up, b.request); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					return Finding{}, err
				}
				n := total(statuses)
				return decide(statuses[200] == n, "sent: GETs over 4 connections during 3 rotations; lost: %d; answers other than 200: %s", n-statuses[200], tally(except(statuses, 200)))
			},
		},
		orphans(custom("control_plane.connection", "Does a connection go on that was open when the control plane was killed?", "200", envoyEvents,
			func(_ context.Context, b *Bed) (Finding, error) {
				a := b.kept.Do(Request{}.text(b.host()))
				return decide(a.Status == 200 && a.Err == nil, "sent: GET over the connection from before; seen: %s", a)
			})),
		orphans(custom("control_plane.new_connection", "Do new connections work while there is no control plane?", "200", envoyEvents,
			func(ctx context.Context, b *Bed) (Finding, error) {
				statuses := b.Many(ctx, 20, Request{})
				return decide(statuses[200] == 20, "sent: 20 GETs over new connections; seen: %s", tally(statuses))
			})),
		orphans(custom("control_plane.policies", "Do policies stay in force without the control plane?", "the field that a policy sets still arrives", envoyEvents,
			func(ctx context.Context, b *Bed) (Finding, error) {
				a, records, err := b.Ask(ctx, Request{})
				if err != nil {
					return Finding{}, err
				}
				var v []string
				if len(records) == 1 {
					v = valuesOf(records[0].Message.Get("x-orphan"))
				}
				return decide(len(v) == 1 && v[0] == "yes", "sent: GET; X-Orphan arrived as %s; answer %s", quoted(v), a)
			}), meshbench.PolicyHeaders),
		orphans(custom("control_plane.for_a_while", "Does traffic still pass 10 s after the control plane was killed?", "200, over the old connection and a new one", envoyEvents,
			func(ctx context.Context, b *Bed) (Finding, error) {
				if err := sleep(ctx, 10*time.Second); err != nil {
					return Finding{}, err
				}
				old, fresh := b.kept.Do(Request{}.text(b.host())), b.Do(ctx, Request{})
				return decide(old.Status == 200 && fresh.Status == 200, "sent 10 s later: over the old connection: %s; over a new one: %s", old, fresh)
			})),
	}
}

// absence asks while the application does not listen, and again when it does.
func (b *Bed) absence(ctx context.Context) (gone, back Answer, err error) {
	const pause = 1500 * time.Millisecond
	if a := b.Do(ctx, Request{}); a.Status != 200 {
		return gone, back, fmt.Errorf("before the application went: %s", a)
	}
	address, err := b.up.Address(Echo, httpPort)
	if err != nil {
		return gone, back, err
	}
	ended := make(chan error, 1)
	go func() { ended <- b.Restart(ctx, Echo, pause) }()
	for {
		c, err := dial(ctx, address, nil)
		if err != nil {
			break
		}
		c.Close()
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return gone, back, err
		}
	}
	gone = b.Do(ctx, Request{Key: b.Key()})
	if err := <-ended; err != nil {
		return gone, back, err
	}
	return gone, b.Do(ctx, Request{}), nil
}

func except(statuses map[int]int, status int) map[int]int {
	out := map[int]int{}
	for s, n := range statuses {
		if s != status {
			out[s] = n
		}
	}
	return out
}

// withoutAddresses takes ports out of a proxy's own words: they are others
// each time.
func withoutAddresses(a Answer) Answer {
	a.Body = []byte(addresses.ReplaceAllString(string(a.Body), "ADDRESS"))
	return a
}

var addresses = regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+:[0-9]+`)
