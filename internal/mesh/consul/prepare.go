package consul

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
)

// bootstrapFile is in the directory of each Envoy.
const bootstrapFile = "bootstrap.json"

// nobody is the port that the generator's proxy is told as its application's:
// the generator takes no requests, and no intention lets any through to it.
const nobody = 9

// Prepare tells the agent of all services and proxies before the first proxy
// starts, together with all configuration entries, so that what a proxy gets
// first is whole. For each Envoy it has Consul write the bootstrap.
func (d Driver) Prepare(ctx context.Context, access mesh.Access, r mesh.Request, process string) error {
	all := proxies(r)
	for i, p := range all {
		if p.name != process {
			continue
		}
		if i == 0 {
			if err := d.register(ctx, access, r, all); err != nil {
				return err
			}
		}
		if dataPlane(r.Subject) == envoyProxy {
			return d.bootstrap(ctx, access, r, p)
		}
	}
	return nil
}

func (d Driver) register(ctx context.Context, access mesh.Access, r mesh.Request, all []proxy) error {
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	a, err := d.agent(access)
	if err != nil {
		return err
	}
	if err := a.awaitAuthority(ctx); err != nil {
		return err
	}
	if err := check(r); err != nil {
		return err
	}
	wanted, err := entries(r)
	if err != nil {
		return err
	}
	for _, e := range wanted {
		if err := a.write(ctx, e); err != nil {
			return err
		}
	}
	for _, p := range all {
		application, proxy, err := registrations(access, r, p)
		if err != nil {
			return err
		}
		for _, body := range []object{application, proxy} {
			if err := a.call(ctx, http.MethodPut, "/v1/agent/service/register?replace-existing-checks=true", body, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// registrations is what the agent is told of a service instance and its proxy.
func registrations(access mesh.Access, r mesh.Request, p proxy) (application, sidecar object, err error) {
	host, port := "127.0.0.1", nobody
	if p.application != nil {
		if host, port, err = endpoint(access, p.application.Process, p.application.Port); err != nil {
			return nil, nil, err
		}
	}
	application = object{"ID": p.id, "Name": p.service, "Address": host, "Port": port}
	way := object{
		"DestinationServiceName": p.service, "DestinationServiceID": p.id,
		"LocalServiceAddress": host, "LocalServicePort": port,
	}
	var upstreams []object
	for _, c := range p.calls {
		host, port, err := endpoint(access, p.name, c.port)
		if err != nil {
			return nil, nil, err
		}
		upstreams = append(upstreams, object{"DestinationName": c.to, "LocalBindAddress": host, "LocalBindPort": port})
	}
	if upstreams != nil {
		way["Upstreams"] = upstreams
	}
	if dataPlane(r.Subject) == builtinProxy {
		if way["Config"], err = telemetryConfig(access, p.name); err != nil {
			return nil, nil, err
		}
	}
	if host, port, err = endpoint(access, p.name, inboundPort); err != nil {
		return nil, nil, err
	}
	sidecar = object{
		"Kind": "connect-proxy", "ID": p.name, "Name": p.service + "-sidecar-proxy",
		"Address": host, "Port": port, "Proxy": way,
	}
	return application, sidecar, nil
}

func endpoint(access mesh.Access, process, port string) (string, int, error) {
	address, err := access.Address(process, port)
	if err != nil {
		return "", 0, err
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.Atoi(text)
	return host, n, err
}

// bootstrap has `consul connect envoy -bootstrap` write a proxy's bootstrap:
// who it is, where its admin endpoint is, and where the agent is.
func (d Driver) bootstrap(ctx context.Context, access mesh.Access, r mesh.Request, p proxy) error {
	version, err := mesh.Version(d.Describe(), r.Subject.Version)
	if err != nil {
		return err
	}
	program, err := access.Program("consul@" + version)
	if err != nil {
		return err
	}
	dir, err := access.Dir(p.name)
	if err != nil {
		return err
	}
	var addresses [3]string
	for i, port := range []meshbench.PortRef{{Process: Agent, Port: "http"}, {Process: Agent, Port: "grpc"}, {Process: p.name, Port: adminPort}} {
		if addresses[i], err = access.Address(port.Process, port.Port); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, configureTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "connect", "envoy", "-proxy-id", p.name, "-admin-bind", addresses[2], "-bootstrap")
	// Nothing of our own environment: it may name another agent.
	cmd.Env = []string{"CONSUL_HTTP_ADDR=" + addresses[0], "CONSUL_GRPC_ADDR=" + addresses[1]}
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "consul connect envoy -bootstrap for %s: %w: %s", p.name, err, strings.TrimSpace(said.String()))
	}
	if !json.Valid(out.Bytes()) {
		return meshbench.Errorf(meshbench.Internal, "consul connect envoy -bootstrap for %s wrote no JSON: %.200s", p.name, out.Bytes())
	}
	if err := os.WriteFile(filepath.Join(dir, bootstrapFile), out.Bytes(), 0o600); err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the bootstrap of %s cannot be written: %w", p.name, err)
	}
	return nil
}
