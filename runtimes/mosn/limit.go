//go:build ignore

package main

import (
	"context"

	sentinel "github.com/alibaba/sentinel-golang/api"
	"github.com/alibaba/sentinel-golang/core/base"
	"mosn.io/mosn/pkg/filter/stream/flowcontrol"
	"mosn.io/mosn/pkg/types"
)

// serviceResource is the one resource that a limit is for.
const serviceResource = "service"

func init() {
	flowcontrol.RegisterCallbacks("meshbench_service", &perService{})
}

// perService counts all requests of a proxy together. By itself the filter
// counts those of each path apart.
type perService struct{ flowcontrol.DefaultCallbacks }

// ParseResource says what a request counts for.
func (*perService) ParseResource(context.Context, types.HeaderMap, types.IoBuffer, types.HeaderMap, base.TrafficType) *flowcontrol.ParsedResource {
	return &flowcontrol.ParsedResource{
		Resource: base.NewResourceWrapper(serviceResource, base.ResTypeWeb, base.Inbound),
		Opts:     []sentinel.EntryOption{sentinel.WithTrafficType(base.Inbound)},
	}
}
