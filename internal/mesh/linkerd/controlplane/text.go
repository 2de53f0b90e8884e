package controlplane

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/linkerd/linkerd2-proxy-api/go/outbound"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// OutboundText is what proxies are told about requests to a service (a
// message io.linkerd.proxy.outbound.OutboundPolicy), as JSON for people.
func (c Config) OutboundText(s Service) (string, error) { return text(c.outboundPolicy(s)) }

// InboundText is what a proxy is told about one of its ports (a message
// io.linkerd.proxy.inbound.Server), as JSON for people.
func InboundText(s Server) (string, error) { return text(inboundServer(s)) }

// text makes the same of the same message, which protojson alone does not: it
// varies its spaces on purpose.
func text(m proto.Message) (string, error) {
	data, err := protojson.Marshal(m)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, data, "", "  "); err != nil {
		return "", err
	}
	return out.String() + "\n", nil
}

func portText(port uint32) string { return strconv.FormatUint(uint64(port), 10) }

func targetText(t *outbound.TrafficSpec) string {
	if t.GetAuthority() != "" {
		return t.GetAuthority()
	}
	if a, ok := addrPort(t.GetAddr()); ok {
		return a.String()
	}
	return "an address that is not of IPv4"
}
