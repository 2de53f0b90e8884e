package istio

import (
	"fmt"
	"net"
	"strconv"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/mesh"
	"github.com/meshbench/meshbench/internal/mesh/istio/apiserver"
)

const (
	namespace       = "default"      // of all workloads
	systemNamespace = "istio-system" // of istiod
	labelApp        = "app"          // of a workload: its service, or "client"
	labelProxy      = "proxy"        // of a workload: the process of its proxy
	labelOurs       = "app.kubernetes.io/managed-by"
	ours            = "meshbench"
	portName        = "http"
)

// The kinds of objects.
var (
	namespaces       = apiserver.Resource{APIVersion: "v1", Kind: "Namespace", Plural: "namespaces", Cluster: true}
	configMaps       = apiserver.Resource{APIVersion: "v1", Kind: "ConfigMap", Plural: "configmaps"}
	secrets          = apiserver.Resource{APIVersion: "v1", Kind: "Secret", Plural: "secrets"}
	serviceAccounts  = apiserver.Resource{APIVersion: "v1", Kind: "ServiceAccount", Plural: "serviceaccounts"}
	customResources  = apiserver.Resource{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition", Plural: "customresourcedefinitions", Cluster: true}
	serviceEntries   = networking("ServiceEntry", "serviceentries")
	workloadEntries  = networking("WorkloadEntry", "workloadentries")
	sidecars         = networking("Sidecar", "sidecars")
	virtualServices  = networking("VirtualService", "virtualservices")
	destinationRules = networking("DestinationRule", "destinationrules")
	envoyFilters     = apiserver.Resource{APIVersion: "networking.istio.io/v1alpha3", Kind: "EnvoyFilter", Plural: "envoyfilters"}
	peerAuths        = apiserver.Resource{APIVersion: "security.istio.io/v1", Kind: "PeerAuthentication", Plural: "peerauthentications"}
	authorizations   = apiserver.Resource{APIVersion: "security.istio.io/v1", Kind: "AuthorizationPolicy", Plural: "authorizationpolicies"}
)

func networking(kind, plural string) apiserver.Resource {
	return apiserver.Resource{APIVersion: "networking.istio.io/v1", Kind: kind, Plural: plural}
}

// changing are the kinds of which objects come and go with the policies and
// the workload.
var changing = []apiserver.Resource{serviceEntries, workloadEntries, sidecars, virtualServices, destinationRules, envoyFilters, peerAuths, authorizations}

// object is one with its kind.
type object struct {
	kind apiserver.Resource
	apiserver.Object
}

// fields is a part of an object.
type fields = map[string]any

func newObject(kind apiserver.Resource, name string, spec fields) object {
	o := object{kind: kind, Object: apiserver.Object{
		APIVersion: kind.APIVersion, Kind: kind.Kind,
		Metadata: apiserver.Metadata{Name: name, Namespace: namespace, Labels: map[string]string{labelOurs: ours}},
	}}
	if spec != nil {
		o.Spec = spec
	}
	return o
}

func (o object) key() string { return o.kind.Plural + "/" + o.Metadata.Name }

// workloads are the objects that make services, instances and the listeners of
// their proxies known. Each caller's proxy has a listener of its own for each
// service that it calls, at a port that the infrastructure chose. Istio joins
// such a listener to services by the number of the port, so every service has
// all of those ports: those that are called by it, and those that a route may
// lead to.
func workloads(access mesh.Access, r mesh.Request) ([]object, error) {
	out, err := general(r)
	if err != nil {
		return nil, err
	}
	out = append(out, newObject(serviceAccounts, mesh.Client, nil))
	all := proxies(r)
	var ports []fields
	for _, caller := range all {
		for _, callee := range caller.calls {
			_, number, err := listener(access, caller, outbound(callee))
			if err != nil {
				return nil, err
			}
			ports = append(ports, fields{"number": number, "name": portName + "-" + caller.process + "-" + outbound(callee), "protocol": "HTTP"})
		}
	}
	for _, s := range r.Services {
		out = append(out, newObject(serviceAccounts, s.Name, nil), newObject(serviceEntries, s.Name, fields{
			"hosts": []string{host(s.Name)}, "location": "MESH_INTERNAL", "resolution": "STATIC",
			"ports": ports, "workloadSelector": fields{"labels": fields{labelApp: s.Name}},
		}))
	}
	for _, p := range all {
		if p.app == nil {
			continue
		}
		ip, inbound, err := listener(access, p, "inbound")
		if err != nil {
			return nil, err
		}
		targets := fields{}
		for _, port := range ports {
			targets[port["name"].(string)] = inbound
		}
		out = append(out, newObject(workloadEntries, p.process, fields{
			"address": ip, "ports": targets, "serviceAccount": p.owner,
			// That it takes mutual TLS is what a pod's sidecar is labelled with.
			"labels": fields{labelApp: p.owner, labelProxy: p.process, "security.istio.io/tlsMode": "istio"},
		}))
	}
	for _, p := range all {
		spec, err := sidecar(access, p)
		if err != nil {
			return nil, err
		}
		out = append(out, newObject(sidecars, p.process, spec))
	}
	return out, nil
}

// general are the objects for the whole mesh that the subject and the profile
// ask for.
func general(r mesh.Request) ([]object, error) {
	out := []object{newObject(peerAuths, "default", fields{"mtls": fields{"mode": peerMode(mode(r))}})}
	if r.Profile != meshbench.Parity {
		return out, nil
	}
	combined, err := mesh.Combine(r)
	if err != nil {
		return nil, err
	}
	var secured []string
	for _, p := range combined {
		if modeOf(r, p) != meshbench.MTLSOff {
			secured = append(secured, p.Service)
		}
	}
	if len(secured) > 0 {
		out = append(out, groups(secured))
	}
	return out, nil
}

// sidecar says which listeners a proxy has.
func sidecar(access mesh.Access, p proxy) (fields, error) {
	spec := fields{"workloadSelector": fields{"labels": fields{labelProxy: p.process}}}
	if p.app != nil {
		ip, number, err := listener(access, p, "inbound")
		if err != nil {
			return nil, err
		}
		application, err := access.Address(p.app.Process, p.app.Port)
		if err != nil {
			return nil, err
		}
		spec["ingress"] = []fields{{
			"port": fields{"number": number, "protocol": "HTTP", "name": portName},
			"bind": ip, "captureMode": "NONE", "defaultEndpoint": application,
		}}
	}
	egress := []fields{}
	for _, callee := range p.calls {
		ip, number, err := listener(access, p, outbound(callee))
		if err != nil {
			return nil, err
		}
		egress = append(egress, fields{
			"port": fields{"number": number, "protocol": "HTTP", "name": portName + "-" + callee},
			"bind": ip, "captureMode": "NONE", "hosts": []string{"./*"}, // those that routes may lead to, too
		})
	}
	if len(egress) == 0 {
		egress = []fields{{"hosts": []string{"~/*"}}} // nothing
	}
	spec["egress"] = egress
	return spec, nil
}

// listener is where a proxy listens on one of its ports.
func listener(access mesh.Access, p proxy, port string) (ip string, number int, err error) {
	address, err := access.Address(p.process, port)
	if err != nil {
		return "", 0, err
	}
	ip, text, err := net.SplitHostPort(address)
	if err == nil {
		number, err = strconv.Atoi(text)
	}
	if err != nil {
		return "", 0, meshbench.Errorf(meshbench.Internal, "%q is no address: %w", address, err)
	}
	return ip, number, nil
}

func peerMode(m meshbench.MTLSMode) string {
	switch m {
	case meshbench.MTLSPermissive:
		return "PERMISSIVE"
	case meshbench.MTLSOff:
		return "DISABLE"
	}
	return "STRICT"
}

// parityGroup is the group for key exchange in profile parity. Istio has no
// setting for it between sidecars (MeshConfig says that its groups are for
// other traffic), and Envoy 1.40 by itself prefers X25519MLKEM768.
const parityGroup = "X25519"

// groups is the EnvoyFilter that sets parityGroup on both sides, for services
// that are reached by mutual TLS: it would give TLS to what has none.
func groups(services []string) object {
	patch := func(applyTo, context string, match fields, tls string) fields {
		match["context"] = context
		return fields{"applyTo": applyTo, "match": match, "patch": fields{"operation": "MERGE", "value": fields{
			"transport_socket": fields{"name": "envoy.transport_sockets.tls", "typed_config": fields{
				"@type":              "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3." + tls,
				"common_tls_context": fields{"tls_params": fields{"ecdh_curves": []string{parityGroup}}},
			}},
		}}}
	}
	tls := fields{"listener": fields{"filterChain": fields{"transportProtocol": "tls"}}}
	patches := []fields{patch("FILTER_CHAIN", "SIDECAR_INBOUND", tls, "DownstreamTlsContext")}
	for _, s := range services {
		patches = append(patches, patch("CLUSTER", "SIDECAR_OUTBOUND", fields{"cluster": fields{"service": host(s)}}, "UpstreamTlsContext"))
	}
	return newObject(envoyFilters, "parity", fields{"configPatches": patches})
}

// marker is the EnvoyFilter by which Configure sees how far a push has come:
// a cluster without endpoints, which nothing uses.
func marker(name string) object {
	return newObject(envoyFilters, "marker", fields{"configPatches": []fields{{
		"applyTo": "CLUSTER", "match": fields{"context": "ANY"},
		"patch": fields{"operation": "ADD", "value": fields{
			"name": name, "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": fields{"cluster_name": name},
		}},
	}}})
}

func label() string { return fmt.Sprintf("%s=%s", labelOurs, ours) }
