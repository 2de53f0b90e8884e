package scrape

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/meshbench/meshbench"
)

// start runs a program that listens on a free port of the loopback device
// until the test ends, and waits until the path answers 200.
func start(t *testing.T, path, program string, args func(address string) []string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	cmd := exec.Command(program, args(address)...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: test/install-tools installs it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		log.Close()
	})
	for range 600 {
		if response, err := http.Get("http://" + address + path); err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return address
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	said, _ := os.ReadFile(log.Name())
	t.Fatalf("%s is not ready:\n%s", program, said)
	return ""
}

// TestNodeExporterAndPrometheus reads Debian's node exporter itself, and
// through a real Prometheus that scrapes it.
func TestNodeExporterAndPrometheus(t *testing.T) {
	node := start(t, "/metrics", "prometheus-node-exporter", func(address string) []string {
		return []string{"--web.listen-address=" + address, "--collector.disable-defaults", "--collector.cpu", "--collector.loadavg"}
	})
	dir := t.TempDir()
	config := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, "scrape_configs:\n- {job_name: node, scrape_interval: 200ms, scrape_timeout: 200ms, static_configs: [{targets: ['%s']}]}\n", node), 0o600); err != nil {
		t.Fatal(err)
	}
	server := start(t, "/-/ready", "prometheus", func(address string) []string {
		return []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address}
	})

	sources := []meshbench.MetricSource{
		{Name: "node", URL: "http://" + node + "/metrics", Series: []string{"node_load1", "node_cpu_seconds*"}, Interval: meshbench.Duration(200 * time.Millisecond)},
		{Name: "server", URL: "http://" + server + "/", Query: "node_load1", Interval: meshbench.Duration(200 * time.Millisecond)},
		{Name: "up", URL: "http://" + server, Query: "sum(up) * 2"},
	}
	var all []meshbench.MetricSeries
	for range 60 { // until Prometheus has scraped for the first time
		end := Reader{Client: http.DefaultClient}.Watch(t.Context(), sources)
		time.Sleep(time.Second)
		var errs []error
		if all, errs = end(); len(errs) > 0 {
			t.Fatal(errs)
		}
		n := map[string]int{}
		for _, s := range all {
			n[s.Source]++
		}
		if n["server"] == 1 && n["up"] == 1 && n["node"] > 1 {
			break
		}
	}
	load := find(t, all, "node_load1")
	if load.Source != "node" || load.Kind != meshbench.GaugeMetric || len(load.Points) < 3 {
		t.Errorf("%+v", load)
	}
	idle := find(t, all, `node_cpu_seconds_total{cpu="0", mode="idle"}`)
	user := find(t, all, `node_cpu_seconds_total{cpu="0", mode="user"}`)
	if idle.Kind != meshbench.CounterMetric || idle.Increase+user.Increase < 0 || idle.Resets != 0 {
		t.Errorf("%+v", idle)
	}
	through := find(t, all, fmt.Sprintf("node_load1{instance=%q, job=\"node\"}", node))
	if through.Source != "server" || len(through.Points) == 0 || through.Points[0][1] < 0 {
		t.Errorf("%+v", through)
	}
	if up := find(t, all, "sum(up) * 2"); len(up.Points) == 0 || up.Points[len(up.Points)-1][1] != 2 {
		t.Errorf("%+v", up)
	}

	_, err := Query(context.Background(), http.DefaultClient, meshbench.MetricSource{URL: "http://" + server, Query: "rate("}, time.Now().Add(-time.Minute), time.Now())
	if err == nil || err.Error()[:20] != "it refuses the query" {
		t.Errorf("a wrong query: %v", err)
	}
}
