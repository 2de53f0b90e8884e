package istio

import (
	"encoding/json"
	"strings"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/pki"
)

// Files that Prepare writes, relative to a process's directory.
const (
	accountKey   = "sa.key"     // of the API server: signs tokens of service accounts
	accountPub   = "sa.pub"     // of the API server: verifies them
	tokensFile   = "tokens.csv" // of the API server: who may ask it
	kubeconfig   = "kubeconfig" // of istiod
	agentToken   = "var/run/secrets/tokens/istio-token"
	agentRoot    = "var/run/secrets/istio/root-cert.pem"
	templateFile = "envoy_bootstrap.json" // beside pilot-agent, and in the agent's directory
	crdFile      = "crd-all.gen.yaml"     // beside istiod
)

// counted are the statistics that Counters, Settings and Configure read, which Istio by
// default does not keep. They are few, so that keeping them costs next to
// nothing.
var counted = []string{
	`^http\.(in|out)bound_.*;?\.downstream_(rq_total|cx_total|cx_ssl_total)$`,
	`^cluster\.outbound\|.*\.(upstream_rq_total|upstream_cx_http[123]_total|ssl\.(versions|curves|ciphers)\..*)$`,
	`^http\.outbound_.*\.rds\..*\.update_rejected$`,
	`^listener\..*\.ssl\.(handshake|no_certificate|(versions|curves|ciphers)\..*)$`,
}

// Render says that a control plane and proxies must run.
func (d Driver) Render(r mesh.Request) (meshbench.Spec, error) {
	if err := mesh.CheckRequest(d.Describe(), r); err != nil {
		return meshbench.Spec{}, err
	}
	config, err := meshConfig(r)
	if err != nil {
		return meshbench.Spec{}, err
	}
	spec := meshbench.Spec{
		Processes: []meshbench.Process{etcd(), apiServer(), istiod(r, config)},
		Entry:     meshbench.PortRef{Process: ClientProxy, Port: outbound(r.Services[0].Name)},
		Host:      host(r.Services[0].Name),
		Runtimes:  []string{envoy},
	}
	for _, p := range proxies(r) {
		process, err := agent(r, p)
		if err != nil {
			return meshbench.Spec{}, err
		}
		spec.Processes = append(spec.Processes, process)
	}
	for _, p := range proxies(r) {
		if p.app == nil {
			continue
		}
		for _, callee := range p.calls {
			spec.Routes = append(spec.Routes, meshbench.Route{
				From: p.owner, Instance: p.instance, To: callee, Host: host(callee),
				At: meshbench.PortRef{Process: p.process, Port: outbound(callee)},
			})
		}
	}
	return spec, nil
}

// etcd keeps what the API server is told. That it does not wait for the disk
// is right for data that ends with the run.
func etcd() meshbench.Process {
	client, peer := "http://"+loopback(Etcd, "client"), "http://"+loopback(Etcd, "peer")
	return meshbench.Process{
		Name: Etcd, Role: meshbench.ControlPlane, Runtime: etcdRuntime,
		Args: []string{
			"--data-dir", "{{dir}}/data", "--unsafe-no-fsync",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default=" + peer,
			"--logger", "zap", "--log-level", "warn",
		},
		Env:      environment(),
		Ports:    []string{"client", "peer"},
		ReadyURL: client + "/health",
		MayPark:  true, Control: true,
	}
}

// apiServer is ready in the sense of a Spec when it takes connections; Prepare
// waits until it serves, which only those may ask that have its token.
// It has no authorization: whoever has the token may do everything.
func apiServer() meshbench.Process {
	return meshbench.Process{
		Name: APIServer, Role: meshbench.ControlPlane, Runtime: apiRuntime,
		Args: []string{
			"--etcd-servers=http://" + loopback(Etcd, "client"),
			"--bind-address=127.0.0.1", "--secure-port=" + port(APIServer, "https"), "--cert-dir={{dir}}/pki",
			// Without it a machine that has no network but loopback has no API server.
			"--advertise-address=127.0.0.1", "--endpoint-reconciler-type=none",
			"--service-account-key-file={{dir}}/" + accountPub, "--service-account-signing-key-file={{dir}}/" + accountKey,
			"--service-account-issuer=https://kubernetes.default.svc",
			// istiod has tokens reviewed for the audience istio-ca.
			"--api-audiences=istio-ca,https://kubernetes.default.svc",
			"--token-auth-file={{dir}}/" + tokensFile, "--authorization-mode=AlwaysAllow", "--anonymous-auth=false",
			"--service-cluster-ip-range=10.96.0.0/16",
			"--disable-admission-plugins=ServiceAccount", "--enable-priority-and-fairness=false",
		},
		// It would keep more than twice of what it needs for so few objects.
		Env:      environment("GOGC=30"),
		Ports:    []string{"https"},
		ReadyURL: "tcp://" + loopback(APIServer, "https"),
		MayPark:  true, Control: true,
	}
}

func istiod(r mesh.Request, config string) meshbench.Process {
	env := environment(
		"POD_NAMESPACE="+systemNamespace, "POD_NAME=istiod-1", "CLUSTER_ID=Kubernetes", "ISTIOD_CUSTOM_HOST=localhost",
		// There are no pods to inject into, and what we write is valid.
		"INJECTION_WEBHOOK_CONFIG_NAME=", "VALIDATION_WEBHOOK_CONFIG_NAME=",
		"PILOT_ENABLE_AMBIENT=false",
		// These need filters that Istio's own build of Envoy has and upstream's
		// has not.
		"PILOT_ENABLE_METADATA_EXCHANGE=false", "PILOT_ENABLE_ALPN_FILTER=false",
	)
	if debounce := r.Subject.Options[optionDebounce]; debounce != "" {
		env = append(env, "PILOT_DEBOUNCE_AFTER="+debounce)
	}
	address := func(port string) string { return loopback(Istiod, port) }
	return meshbench.Process{
		Name: Istiod, Role: meshbench.ControlPlane, Runtime: "istiod@" + version,
		Args: []string{
			"discovery", "--kubeconfig", "{{dir}}/" + kubeconfig, "--meshConfig", "{{dir}}/mesh.yaml", "--networksConfig", "/dev/null",
			"--grpcAddr", address("grpc"), "--httpAddr", address("http"), "--httpsAddr", address("https"),
			"--secureGRPCAddr", address("xds"), "--monitoringAddr", address("monitoring"),
			"--ctrlz_port", port(Istiod, "ctrlz"), "--keepaliveMaxServerConnectionAge", "30m",
			"--log_output_level", "all:warn",
		},
		Env:      env,
		Files:    []meshbench.File{{Name: "mesh.yaml", Text: config}},
		Ports:    []string{"grpc", "http", "https", "xds", "monitoring", "ctrlz"},
		ReadyURL: "http://" + address("http") + "/ready",
		MayPark:  true, Control: true,
	}
}

// meshConfig is the MeshConfig, as JSON, which is YAML too.
func meshConfig(r mesh.Request) (string, error) {
	config := map[string]any{
		"trustDomain": pki.TrustDomain, "enableAutoMtls": true,
		"defaultConfig": map[string]any{"discoveryAddress": loopback(Istiod, "xds")},
	}
	if r.Profile == meshbench.Parity {
		config["enableTracing"] = false
		config["accessLogFile"] = ""
		config["meshMTLS"] = map[string]any{"minProtocolVersion": "TLSV1_3"}
	}
	return compact(config)
}

// agent is a pilot-agent, which starts its Envoy itself: CPU and memory of the
// process are those of both.
func agent(r mesh.Request, p proxy) (meshbench.Process, error) {
	own := func(name string) string { return port(p.process, name) }
	// Numbers are written as strings, which the JSON of Protocol Buffers allows,
	// since they are templates still.
	config := map[string]any{
		"discoveryAddress": loopback(Istiod, "xds"), "binaryPath": "{{program `" + envoy + "`}}",
		"configPath": "./etc/istio/proxy", "proxyBootstrapTemplatePath": "./" + templateFile,
		"proxyAdminPort": own("admin"), "statusPort": own("status"), "serviceCluster": p.owner + "." + namespace,
		"drainDuration": "1s", "terminationDrainDuration": "1s",
		"proxyStatsMatcher": map[string]any{"inclusionRegexps": counted},
	}
	env := environment(
		"POD_NAME="+p.process, "POD_NAMESPACE="+namespace, "SERVICE_ACCOUNT="+p.owner, "TRUST_DOMAIN="+pki.TrustDomain,
		// istiod tells workloads apart by their address.
		"INSTANCE_IP={{host `"+p.process+"`}}",
		"ISTIO_META_CLUSTER_ID=Kubernetes", "ISTIO_META_INTERCEPTION_MODE=NONE", "ISTIO_META_DNS_CAPTURE=false",
		"ISTIO_META_MESH_ID="+pki.TrustDomain, "ISTIO_META_WORKLOAD_NAME="+p.process,
		"CA_ADDR="+loopback(Istiod, "xds"), "ISTIOD_SAN=istiod."+systemNamespace+".svc", "PILOT_CERT_PROVIDER=istiod",
		"XDS_ROOT_CA=./"+agentRoot, "CA_ROOT_CA=./"+agentRoot,
		"ENVOY_STATUS_PORT="+own("envoy-status"), "ENVOY_PROMETHEUS_PORT="+own("prometheus"),
	)
	if r.Profile == meshbench.Parity {
		config["concurrency"] = r.Threads
		// The other meshes' certificates have such keys.
		env = append(env, "ECC_SIGNATURE_ALGORITHM=ECDSA", "ECC_CURVE=P256")
	}
	for _, v := range []struct {
		name  string
		value any
	}{{"PROXY_CONFIG", config}, {"ISTIO_METAJSON_LABELS", labels(p)}} {
		text, err := compact(v.value)
		if err != nil {
			return meshbench.Process{}, err
		}
		env = append(env, v.name+"="+text)
	}
	return meshbench.Process{
		Name: p.process, Role: p.role(), Service: p.service(), Instance: p.instance,
		Runtime: "pilot-agent@" + version,
		Args:    []string{"proxy", "sidecar", "--domain", namespace + ".svc.cluster.local", "--log_output_level", "all:warn", "--proxyLogLevel", "warning"},
		Env:     env, Ports: p.ports(), OwnHost: true,
		ReadyURL: "http://" + loopback(p.process, "status") + "/healthz/ready",
		MayPark:  true,
	}, nil
}

// labels are those of a workload, by which Istio's objects choose it.
func labels(p proxy) map[string]string {
	return map[string]string{labelApp: p.owner, labelProxy: p.process}
}

// environment is that of a program that shall find nothing but what it is
// given.
func environment(more ...string) []string {
	return append([]string{"HOME={{dir}}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, more...)
}

// port is a port's number in a text. Its quotes are such that the text can
// stand in JSON.
func port(process, name string) string { return "{{port `" + process + "` `" + name + "`}}" }

// loopback is a port's address in a text: everything but the workloads' own
// listeners is at 127.0.0.1.
func loopback(process, name string) string { return "127.0.0.1:" + port(process, name) }

// compact is JSON on one line, in which the text of templates stays as it is.
func compact(v any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return strings.TrimSpace(b.String()), err
}
