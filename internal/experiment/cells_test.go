package experiment

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/meshbench/meshbench"
)

func TestCells(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // id <- baseline axes workload path URL
	}{
		"defaults": {"{}", []string{
			"none <-  map[rate_rps:500] echo@1 loopback ",
			"envoy <- none map[rate_rps:500] echo@1 loopback ",
		}},
		"a baseline that is not the first": {"{subjects: [none, 'envoy:b=2:a=1', none], baseline: none#2, load: {rate: max}}", []string{
			"none <- none#2 map[rate_rps:<nil>] echo@1 loopback ",
			"envoy:a=1:b=2 <- none#2 map[rate_rps:<nil>] echo@1 loopback ",
			"none#2 <-  map[rate_rps:<nil>] echo@1 loopback ",
		}},
		"two axes": {"{profile: [parity, shipped], load: {rate: [0.5, max]}}", []string{
			"none/profile=parity/rate=0.5 <-  map[profile:parity rate_rps:0.5] echo@1 loopback ",
			"envoy/profile=parity/rate=0.5 <- none/profile=parity/rate=0.5 map[profile:parity rate_rps:0.5] echo@1 loopback ",
			"none/profile=parity/rate=max <-  map[profile:parity rate_rps:<nil>] echo@1 loopback ",
			"envoy/profile=parity/rate=max <- none/profile=parity/rate=max map[profile:parity rate_rps:<nil>] echo@1 loopback ",
			"none/profile=shipped/rate=0.5 <-  map[profile:shipped rate_rps:0.5] echo@1 loopback ",
			"envoy/profile=shipped/rate=0.5 <- none/profile=shipped/rate=0.5 map[profile:shipped rate_rps:0.5] echo@1 loopback ",
			"none/profile=shipped/rate=max <-  map[profile:shipped rate_rps:<nil>] echo@1 loopback ",
			"envoy/profile=shipped/rate=max <- none/profile=shipped/rate=max map[profile:shipped rate_rps:<nil>] echo@1 loopback ",
		}},
		"a catalogue's workload among one's own": {"{subjects: [none], workload: {response: {body_bytes: [1024, 9]}}}", []string{
			"none/response_bytes=1024 <-  map[rate_rps:500 response_body_bytes:1024] echo@1 loopback ",
			"none/response_bytes=9 <-  map[rate_rps:500 response_body_bytes:9]  loopback ",
		}},
		"one hop and five": {"{subjects: [none], workload: {topology: {chain: [1, 5]}}}", []string{
			"none/chain=1 <-  map[chain:1 rate_rps:500] echo@1 loopback ",
			"none/chain=5 <-  map[chain:5 rate_rps:500]  loopback ",
		}},
		"fan-outs": {"{subjects: [none], workload: {topology: {fan_out: [2, 4]}}}", []string{
			"none/fan_out=2 <-  map[fan_out:2 rate_rps:500]  loopback ",
			"none/fan_out=4 <-  map[fan_out:4 rate_rps:500]  loopback ",
		}},
		"every other axis": {`{subjects: [none], workload: {request: {method: [GET, PUT], path: [/a]}}, load: {keep_alive: [true, false], trial: [1000ms]}}`, []string{
			"none/method=GET/keep_alive=true <-  map[keep_alive:true method:GET rate_rps:500]  loopback ",
			"none/method=GET/keep_alive=false <-  map[keep_alive:false method:GET rate_rps:500]  loopback ",
			"none/method=PUT/keep_alive=true <-  map[keep_alive:true method:PUT rate_rps:500]  loopback ",
			"none/method=PUT/keep_alive=false <-  map[keep_alive:false method:PUT rate_rps:500]  loopback ",
		}},
		"durations": {`{subjects: [none], load: {timeout: [1000ms, 2s], warmup: [0s, 90s]}}`, []string{
			"none/timeout=1s/warmup=0s <-  map[rate_rps:500 timeout:1s warmup:0s] echo@1 loopback ",
			"none/timeout=1s/warmup=1m30s <-  map[rate_rps:500 timeout:1s warmup:1m30s] echo@1 loopback ",
			"none/timeout=2s/warmup=0s <-  map[rate_rps:500 timeout:2s warmup:0s] echo@1 loopback ",
			"none/timeout=2s/warmup=1m30s <-  map[rate_rps:500 timeout:2s warmup:1m30s] echo@1 loopback ",
		}},
		"endpoints": {"{infrastructure: endpoint, urls: {z: 'http://x/p/', a: 'http://y'}, subjects: [a, z, a], baseline: z}", []string{
			"a <- z map[rate_rps:500]  endpoint http://y",
			"z <-  map[rate_rps:500]  endpoint http://x/p/",
			"a#2 <- z map[rate_rps:500]  endpoint http://y",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			cells, err := Cells(parse(t, c.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range cells {
				got = append(got, fmt.Sprintf("%s <- %s %v %s %s %s", c.ID, c.Baseline, c.Axes, c.Workload.Name, c.Path, c.URL))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("-want +got\n%s", d)
			}
		})
	}
}

// TestCellsHoldTheirValues: what an id says, the cell's fields say.
func TestCellsHoldTheirValues(t *testing.T) {
	cells, err := Cells(parse(t, "{seed: 18446744073709551615, subjects: [envoy@1.40], load: {rate: [200, max], trial: [1s, 2s]}, workload: {request: {headers: {a: b}}}}"))
	if err != nil || len(cells) != 4 {
		t.Fatal(cells, err)
	}
	want := meshbench.Cell{
		ID:             "envoy@1.40/rate=max/trial=2s",
		Subject:        meshbench.Subject{ID: "envoy@1.40", Mesh: "envoy", Version: "1.40"},
		Infrastructure: meshbench.Local,
		Path:           meshbench.PathLoopback,
		Profile:        meshbench.Parity,
		Workload:       Defaults().Workload,
		Load:           Defaults().Load,
		Axes:           map[string]any{"rate_rps": nil, "trial": "2s"},
	}
	want.Workload.Name, want.Workload.Request.Headers = "", map[string]string{"a": "b"}
	want.Load.Rate, want.Load.Trial = meshbench.RateMax, meshbench.Duration(2e9)
	if d := cmp.Diff(want, cells[3]); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func TestEndpointSubject(t *testing.T) {
	cells, err := Cells(parse(t, "{infrastructure: endpoint, urls: {base: 'http://x'}}"))
	if err != nil || len(cells) != 1 {
		t.Fatal(cells, err)
	}
	if d := cmp.Diff(meshbench.Subject{ID: "base", Mesh: "endpoint"}, cells[0].Subject); d != "" {
		t.Error(d)
	}
}

func TestHash(t *testing.T) {
	// A golden value: results of other versions are found by it.
	const golden = "6a0e132731526a14bc1984d6ae0c6fa029e17e7e05079c94c5118fe73049538f"
	if h := Hash(Defaults()); h != golden {
		t.Errorf("the hash of the defaults is %s, was %s", h, golden)
	}
	for _, same := range []string{"{}", "subjects: [none, envoy]", "max_time: 600s", "load: {rate: [500.0]}"} {
		if h := Hash(parse(t, same)); h != golden {
			t.Errorf("%s: %s", same, h)
		}
	}
	seen := map[string]string{golden: "{}"}
	for _, other := range []string{"seed: 1", "name: x", "load: {rate: [500, 600]}", "load: {rate: [600, 500]}", "baseline: none", "workload: {request: {path: '/<'}}"} {
		h := Hash(parse(t, other))
		if seen[h] != "" {
			t.Errorf("%s and %s have one hash", other, seen[h])
		}
		seen[h] = other
	}
}
