package experiment

import (
	"fmt"

	"github.com/meshbench/meshbench"
)

// axisNames are the fields of AxisFields as a cell's id and a cell's axes
// call them.
var axisNames = map[string]struct{ id, axis string }{
	"profile":                      {"profile", "profile"},
	"workload.topology.chain":      {"chain", "chain"},
	"workload.topology.fan_out":    {"fan_out", "fan_out"},
	"workload.request.method":      {"method", "method"},
	"workload.request.path":        {"path", "path"},
	"workload.request.body_bytes":  {"request_bytes", "request_body_bytes"},
	"workload.response.body_bytes": {"response_bytes", "response_body_bytes"},
	"load.rate":                    {"rate", "rate_rps"},
	"load.arrivals":                {"arrivals", "arrivals"},
	"load.connections":             {"connections", "connections"},
	"load.keep_alive":              {"keep_alive", "keep_alive"},
	"load.timeout":                 {"timeout", "timeout"},
	"load.warmup":                  {"warmup", "warmup"},
	"load.settle":                  {"settle", "settle"},
	"load.trial":                   {"trial", "trial"},
}

// Cells returns the permutations of an experiment: for every combination of
// the values of its axes (the first axis, in the order of
// meshbench.AxisFields, varies slowest) one cell per subject, in their order.
// An id is the subject's id with what the axes set: "envoy/rate=200". Axes
// has rate_rps always (nil: closed loop) and each other field that varies:
// profile, chain, fan_out, method, path, request_body_bytes,
// response_body_bytes, arrivals, connections, keep_alive, and timeout,
// warmup, settle and trial as durations in text. The error is that of Validate.
func Cells(e meshbench.Experiment) ([]meshbench.Cell, error) {
	if err := Validate(e); err != nil {
		return nil, err
	}
	subjects, err := meshbench.ParseSubjects(e.Subjects)
	if err != nil {
		return nil, err
	}
	baseline := baselineID(e.Baseline, subjects)
	var cells []meshbench.Cell
	var expand func(point meshbench.Experiment, axes []meshbench.Axis, suffix string) error
	expand = func(point meshbench.Experiment, axes []meshbench.Axis, suffix string) error {
		if len(axes) == 0 {
			for _, s := range subjects {
				cells = append(cells, cell(e, point, s, baseline, suffix))
			}
			return nil
		}
		for _, value := range axes[0].Values {
			next, err := point.With(axes[0].Field, value)
			if err != nil {
				return meshbench.Errorf(meshbench.Internal, "axis %s: %w", axes[0].Field, err)
			}
			id := suffix + "/" + axisNames[axes[0].Field].id + "=" + axisText(value)
			if err := expand(next, axes[1:], id); err != nil {
				return err
			}
		}
		return nil
	}
	point := e
	point.Axes = nil
	return cells, expand(point, e.Axes, "")
}

// cell makes the cell of a subject at a point of the axes.
func cell(e, point meshbench.Experiment, s meshbench.Subject, baseline, suffix string) meshbench.Cell {
	c := meshbench.Cell{
		ID:             s.ID + suffix,
		Subject:        s,
		Infrastructure: point.Infrastructure,
		Path:           meshbench.PathLoopback,
		Profile:        point.Profile,
		Workload:       point.Workload,
		Load:           point.Load,
		Axes:           map[string]any{"rate_rps": nil},
	}
	c.Workload.Name = workloadName(point)
	if point.Infrastructure == meshbench.Endpoint {
		c.Path = meshbench.PathEndpoint
		c.URL = point.URLs[s.Mesh]
		c.Subject = meshbench.Subject{ID: s.ID, Mesh: meshbench.Endpoint}
	}
	if s.ID != baseline {
		c.Baseline = baseline + suffix
	}
	if !point.Load.Rate.IsMax() {
		c.Axes["rate_rps"] = float64(point.Load.Rate)
	}
	for _, a := range e.Axes {
		if a.Field != "load.rate" {
			c.Axes[axisNames[a.Field].axis] = fieldValue(point, a.Field)
		}
	}
	return c
}

// fieldValue returns the value of an axis field as a cell's axes show it:
// a string, an int or a bool.
func fieldValue(e meshbench.Experiment, field string) any {
	switch field {
	case "profile":
		return string(e.Profile)
	case "workload.topology.chain":
		return e.Workload.Topology.Chain
	case "workload.topology.fan_out":
		return e.Workload.Topology.FanOut
	case "workload.request.method":
		return e.Workload.Request.Method
	case "workload.request.path":
		return e.Workload.Request.Path
	case "workload.request.body_bytes":
		return e.Workload.Request.BodyBytes
	case "workload.response.body_bytes":
		return e.Workload.Response.BodyBytes
	case "load.arrivals":
		return string(e.Load.Arrivals)
	case "load.connections":
		return e.Load.Connections
	case "load.keep_alive":
		return e.Load.KeepAlive
	case "load.timeout":
		return e.Load.Timeout.String()
	case "load.warmup":
		return e.Load.Warmup.String()
	case "load.settle":
		return e.Load.Settle.String()
	case "load.trial":
		return e.Load.Trial.String()
	}
	panic(fmt.Sprintf("meshbench: %s is no axis", field)) // Validate has seen the axes
}
