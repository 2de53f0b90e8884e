package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const nginxConfig = `worker_processes 1;
daemon off;
pid %[1]s/nginx.pid;
error_log %[1]s/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server { listen 127.0.0.1:%[2]d reuseport; location / { return 200 "%[3]s"; } }
}
`

// nginx starts one with one worker on the server's CPU.
func (b *bench) nginx() (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	path := filepath.Join(b.dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, b.dir, port, strings.Repeat("x", 64))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(b.ctx, "taskset", "-c", serverCPU, "/usr/sbin/nginx", "-c", path, "-e", filepath.Join(b.dir, "error.log"))
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for range 100 {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return "http://" + address + "/", stop, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	stop()
	return "", nil, errors.New("nginx did not start: " + said.String())
}

// wrk runs it for some seconds and returns its rate and its CPU time per request.
func (b *bench) wrk(url string, seconds int) (rate, cpuMicros float64, err error) {
	cmd := exec.CommandContext(b.ctx, "taskset", "-c", generatorCPU, "wrk", "-t1", "-c32", fmt.Sprintf("-d%ds", seconds), url)
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, err
	}
	var requests float64
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "Requests/sec:":
			if rate, err = strconv.ParseFloat(f[1], 64); err != nil {
				return 0, 0, err
			}
		case len(f) > 3 && f[1] == "requests" && f[2] == "in":
			if requests, err = strconv.ParseFloat(f[0], 64); err != nil {
				return 0, 0, err
			}
		}
	}
	if requests == 0 || rate == 0 {
		return 0, 0, fmt.Errorf("wrk said: %s", out)
	}
	return rate, float64(cpu(cmd).Microseconds()) / requests, nil
}

// generator compares with wrk, in turn on the same nginx.
func (b *bench) generator() error {
	url, stop, err := b.nginx()
	if err != nil {
		return err
	}
	defer stop()
	var rates, cpus, wrkRates, wrkCPUs, ourCPUs []float64
	for range b.rounds {
		rate, used, err := b.wrk(url, 3)
		if err != nil {
			return err
		}
		doc, err := b.load(url, "--rate", "max", "--connections", "32", "--duration", "3s", "--warmup", "200ms")
		if err != nil {
			return err
		}
		rates = append(rates, doc.Rate/rate)
		cpus = append(cpus, doc.Generator.CPU/used)
		wrkRates, wrkCPUs, ourCPUs = append(wrkRates, rate), append(wrkCPUs, used), append(ourCPUs, doc.Generator.CPU)
	}
	figure("closed_loop_rate_of_wrk", median(wrkRates), "requests/s")
	figure("cpu_per_request_of_wrk", median(wrkCPUs), "us")
	figure("cpu_per_request", median(ourCPUs), "us")
	figure("cpu_per_request_against_wrk", median(cpus), "ratio (goal <= 0.8)")
	figure("closed_loop_rate_against_wrk", median(rates), "ratio (goal >= 1.3)")

	closed := median(wrkRates)
	best := 0.0
	for _, share := range []float64{0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1} {
		kept := 0
		for range 3 { // a share counts when most of three tries keep it
			doc, err := b.load(url, "--rate", strconv.Itoa(int(closed*share)), "--connections", "32", "--duration", "2s", "--warmup", "500ms")
			if err != nil {
				return err
			}
			if doc.Verdict.Status == "valid" && doc.State == "kept" && doc.Completed >= 0.999*doc.Planned {
				kept++
			} else {
				fmt.Fprintf(os.Stderr, "bench: open loop at %.2f of wrk's rate: %s %s %v, %.4f of the plan\n", share, doc.Verdict.Status, doc.State, doc.Verdict.Reasons, doc.Completed/doc.Planned)
			}
			if kept == 2 {
				break
			}
		}
		if kept >= 2 {
			best = share
		} else if share > best+0.2 {
			break
		}
	}
	figure("highest_valid_open_loop_rate_against_wrk", best, "ratio (goal >= 0.75)")
	return nil
}

// lateness shows how late requests begin at 20,000/s, and what Fortio sees of
// the same server at that rate.
func (b *bench) lateness() error {
	url, stop, err := b.nginx()
	if err != nil {
		return err
	}
	defer stop()
	var observed, predicted, p50, p99, memory []float64
	for range b.rounds {
		doc, err := b.load(url, "--rate", "20000", "--duration", "3s", "--warmup", "500ms")
		if err != nil {
			return err
		}
		observed, predicted = append(observed, doc.Lateness.P99), append(predicted, doc.Gaps.Predicted.P99)
		p50, p99 = append(p50, doc.Response.P50), append(p99, doc.Response.P99)
		memory = append(memory, doc.Generator.Memory/1e6)
	}
	figure("lateness_p99_at_20000", median(observed), "us")
	figure("lateness_p99_at_20000_predicted_from_gaps", median(predicted), "us (goal: observed <= predicted + 20)")
	figure("response_p50_at_20000", median(p50), "us")
	figure("response_p99_at_20000", median(p99), "us")
	figure("worker_memory_peak_at_20000", slices.Max(memory), "MB (limit 64)")

	fortio := filepath.Join(b.dir, "fortio")
	install := exec.CommandContext(b.ctx, "go", "install", "fortio.org/fortio@v1.68.1")
	install.Env = append(os.Environ(), "GOBIN="+b.dir, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		return fmt.Errorf("building fortio: %w: %s", err, out)
	}
	run := exec.CommandContext(b.ctx, "taskset", "-c", generatorCPU, fortio, "load", "-qps", "20000", "-c", "32", "-t", "5s", "-r", "0.000001", "-quiet", "-p", "50,99", url)
	out, err := run.CombinedOutput()
	if err != nil {
		return fmt.Errorf("fortio: %w: %s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 4 && f[0] == "#" && f[1] == "target" {
			seconds, err := strconv.ParseFloat(f[3], 64)
			if err != nil {
				continue
			}
			figure("fortio_p"+strings.TrimSuffix(f[2], "%")+"_at_20000", seconds*1e6, "us")
		}
	}
	return nil
}
