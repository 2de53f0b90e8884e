package linkerd

import (
	"context"
	"fmt"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/linkerd/controlplane"
	"github.com/meshbench/meshbench/internal/pki"
)

// configureTimeout is for the configuration to be sent to all proxies.
const configureTimeout = 30 * time.Second

// Configure tells the control plane what the proxies shall do, and returns
// when that was sent on every stream that they hold open. Linkerd's API has no
// answer by which a proxy says that it has taken something: it does so within
// milliseconds.
func (d Driver) Configure(ctx context.Context, access mesh.Access, r mesh.Request) error {
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return err
	}
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return err
	}
	c, err := loadCredentials(access, proxies(r))
	if err != nil {
		return err
	}
	config, err := d.config(access, r, c.tokens)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	version, err := d.put(ctx, access, config)
	if err != nil {
		return err
	}
	client, err := d.controlPlane(access)
	if err != nil {
		return err
	}
	return client.Await(ctx, version)
}

func (d Driver) put(ctx context.Context, access mesh.Access, config controlplane.Config) (string, error) {
	client, err := d.controlPlane(access)
	if err != nil {
		return "", err
	}
	return client.Put(ctx, config)
}

func (d Driver) controlPlane(access mesh.Access) (controlplane.Client, error) {
	at, err := access.Address(ControlPlane, adminPort)
	return controlplane.Client{Address: at, HTTP: d.http}, err
}

// addresser is what config needs to know of a deployment.
type addresser interface {
	Address(process, port string) (string, error)
}

// config is what the control plane shall tell the proxies.
func (d Driver) config(access addresser, r mesh.Request, tokens map[string]pki.Secret) (controlplane.Config, error) {
	policies, err := mesh.Combine(r)
	if err != nil {
		return controlplane.Config{}, err
	}
	var out controlplane.Config
	if text := r.Subject.Options[lifeOption]; text != "" {
		life, err := time.ParseDuration(text)
		if err != nil {
			return controlplane.Config{}, meshbench.Errorf(meshbench.Invalid, "option %s: %w", lifeOption, err)
		}
		out.CertificateLife = meshbench.Duration(life)
	}
	services := map[string]*controlplane.Service{}
	for i, s := range r.Services {
		made, err := service(access, r, s, policies[i])
		if err != nil {
			return controlplane.Config{}, err
		}
		out.Services = append(out.Services, made)
	}
	for i := range out.Services {
		services[r.Services[i].Name] = &out.Services[i]
	}
	byName := map[string]mesh.ServicePolicy{}
	for _, p := range policies {
		byName[p.Service] = p
	}
	for _, p := range proxies(r) {
		w, err := workload(access, r, p, byName[p.service])
		if err != nil {
			return controlplane.Config{}, err
		}
		w.Token = tokens[p.process]
		out.Workloads = append(out.Workloads, w)
		for _, to := range p.calls {
			at, err := access.Address(p.process, toPort(to))
			if err != nil {
				return controlplane.Config{}, err
			}
			services[to].Addresses = append(services[to].Addresses, at)
		}
	}
	return out, nil
}

// mode is the mutual TLS of a service: the policy's, else the subject's.
func mode(r mesh.Request, p mesh.ServicePolicy) meshbench.MTLSMode {
	if p.MTLS != "" {
		return p.MTLS
	}
	if m := r.Subject.Options["mtls"]; m != "" {
		return meshbench.MTLSMode(m)
	}
	return meshbench.MTLSStrict
}

func service(access addresser, r mesh.Request, s meshbench.Service, p mesh.ServicePolicy) (controlplane.Service, error) {
	out := controlplane.Service{Name: authorityOf(s.Name)}
	for _, app := range s.Instances {
		at, err := access.Address(app.Process, app.Port)
		if err != nil {
			return out, err
		}
		e := controlplane.Endpoint{Address: at}
		if mode(r, p) != meshbench.MTLSOff {
			e.Identity, e.HTTP2 = identityOf(s.Name), true
		}
		out.Endpoints = append(out.Endpoints, e)
	}
	var err error
	if out.Routes, err = routes(s.Name, p.Rules); err != nil {
		return out, err
	}
	out.Breaker, err = breaker(s.Name, p.OutlierDetection)
	return out, err
}

func workload(access addresser, r mesh.Request, p proxy, policy mesh.ServicePolicy) (controlplane.Workload, error) {
	out := controlplane.Workload{Name: p.process, Identity: identityOf(p.service)}
	admin, err := portNumber(access, p.process, adminPort)
	if err != nil {
		return out, err
	}
	out.Servers = []controlplane.Server{{Name: adminServer, Port: admin, Clients: controlplane.Clients{Unmeshed: true}}}
	if p.service == mesh.Client {
		return out, nil
	}
	s := controlplane.Server{Name: p.service}
	if s.Port, err = portNumber(access, p.app.Process, p.app.Port); err != nil {
		return out, err
	}
	if s.Clients, s.Access, err = authorize(r, policy); err != nil {
		return out, err
	}
	if s.RateLimit, err = rateLimit(p.service, policy.RateLimit); err != nil {
		return out, err
	}
	out.Servers = append(out.Servers, s)
	return out, nil
}

// adminServer is the name of the server of every proxy's own admin port.
const adminServer = "proxy-admin"

// Show returns the messages of Linkerd's API that the request's policies
// become.
func (d Driver) Show(r mesh.Request) ([]mesh.Document, error) {
	if err := mesh.CheckPolicies(d.Describe(), r); err != nil {
		return nil, err
	}
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return nil, err
	}
	config, err := d.config(&placeholders{}, r, nil)
	if err != nil {
		return nil, err
	}
	out := []mesh.Document{}
	for i, s := range config.Services {
		text, err := config.OutboundText(s)
		if err != nil {
			return nil, err
		}
		out = append(out, mesh.Document{Title: "OutboundPolicy " + r.Services[i].Name + ", for the proxies of those who call it", Media: "application/json", Text: text})
	}
	shown := map[string]bool{adminServer: true}
	for _, w := range config.Workloads {
		for _, s := range w.Servers {
			if shown[s.Name] {
				continue // every instance has the same
			}
			shown[s.Name] = true
			text, err := controlplane.InboundText(s)
			if err != nil {
				return nil, err
			}
			out = append(out, mesh.Document{Title: "Server " + s.Name + ", for its own proxy", Media: "application/json", Text: text})
		}
	}
	return out, nil
}

// placeholders stand for the addresses of a deployment that does not run:
// those of documentation (RFC 5737).
type placeholders struct{ given int }

// Address never gives the same one twice.
func (p *placeholders) Address(string, string) (string, error) {
	p.given++
	return fmt.Sprintf("192.0.2.1:%d", 1024+p.given), nil
}
