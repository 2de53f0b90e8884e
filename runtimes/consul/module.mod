module github.com/meshbench/meshbench/runtimes/consul

go 1.26.7

require (
	github.com/hashicorp/consul v1.22.7
	github.com/hashicorp/consul/api v1.34.5
)

exclude (
	github.com/hashicorp/go-msgpack v1.1.5
	github.com/hashicorp/go-msgpack v1.1.6
)
