package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/istio"
)

// TestIstioModes changes the mode of mutual TLS of a service in meshes of
// other modes: requests go on, and go as the mode says. Its deployments follow
// each other on control planes that are kept.
func TestIstioModes(t *testing.T) {
	driver := istio.New()
	i := here(t)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	for _, subject := range []meshbench.MTLSMode{meshbench.MTLSOff, meshbench.MTLSPermissive} {
		t.Run(string(subject), func(t *testing.T) {
			r := mesh.Request{
				Subject: meshbench.Subject{ID: "istio", Mesh: "istio", Options: map[string]string{"mtls": string(subject)}}, Profile: meshbench.Parity,
				Workload: echoWorkload, Services: []meshbench.Service{echoService}, Threads: 1,
			}
			spec, err := driver.Render(r)
			if err != nil {
				t.Fatal(err)
			}
			spec.Processes = append(echoes(r.Services), spec.Processes...)
			up := deploy(t, i, spec, func(ctx context.Context, access infra.Access, process string) error {
				return driver.Prepare(ctx, access, r, process)
			})
			for _, policy := range []meshbench.MTLSMode{"", meshbench.MTLSStrict, meshbench.MTLSOff, ""} {
				want := subject
				r.Policies = nil
				if policy != "" {
					want = policy
					r.Policies = []meshbench.Policy{{MTLS: &meshbench.MTLSPolicy{Mode: policy}}}
				}
				if err := driver.Configure(t.Context(), up, r); err != nil {
					t.Fatal(err)
				}
				before, err := driver.Counters(t.Context(), up, r)
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, up.Target().URL, nil)
					if err != nil {
						t.Fatal(err)
					}
					request.Host = up.Target().Host
					response, err := client.Do(request)
					if err != nil {
						t.Fatal(err)
					}
					response.Body.Close()
					if response.StatusCode != 200 {
						t.Errorf("policy %q: %s", policy, response.Status)
					}
				}
				after, err := driver.Counters(t.Context(), up, r)
				if err != nil {
					t.Fatal(err)
				}
				if n := after[0].ServerReceived - before[0].ServerReceived; n != 3 {
					t.Errorf("policy %q: %d of 3 requests", policy, n)
				}
				// Connections are kept, so not every request has one of its own.
				off, a, b := want == meshbench.MTLSOff, after[0], before[0]
				if a.Secure == off || off && (a.Plaintext == 0 || a.Handshakes > b.Handshakes) || !off && (a.Handshakes == 0 || a.Plaintext > b.Plaintext) {
					t.Errorf("policy %q: %+v, then %+v", policy, b, a)
				}
			}
		})
	}
}
