package telemetry

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
)

// Fingerprint describes the machine. What a run adds (versions, placement,
// seed, ...) is left empty; StealShare is the mean since boot until a run
// puts its own in its place. What cannot be seen is left out, never guessed.
func Fingerprint() meshbench.Fingerprint {
	f := meshbench.Fingerprint{
		OS:             runtime.GOOS + "/" + runtime.GOARCH,
		Cores:          runtime.NumCPU(),
		ThreadsPerCore: len(Siblings(0)),
		Governor:       readText("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
		Mitigations:    mitigations("/sys/devices/system/cpu/vulnerabilities"),
		GeneratorCPUs:  []int{},
		SystemCPUs:     []int{},
		Runtimes:       []meshbench.RuntimeUsed{},
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		f.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	if proc, err := procfs.NewFS("/proc"); err == nil {
		if cpus, err := proc.CPUInfo(); err == nil && len(cpus) > 0 {
			f.CPUModel = cpuModel(cpus[0])
			f.Virtualisation = virtualisation(cpus[0])
		}
		if memory, err := proc.Meminfo(); err == nil && memory.MemTotalBytes != nil {
			f.MemoryBytes = *memory.MemTotalBytes
		}
	}
	if m, err := ReadMachine(); err == nil {
		f.StealShare = m.Since(zero(m)).StealShare
		f.Cores = len(m)
	}
	var files unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &files) == nil {
		f.OpenFiles = files.Cur
	}
	if g, err := ReadCgroup(); err == nil {
		f.CPULimit = g.CPULimitCores
	}
	return f
}

func zero(m Machine) Machine {
	out := make(Machine, len(m))
	for i, c := range m {
		out[i].Number = c.Number
	}
	return out
}

// Siblings returns the logical CPUs that share the core of one of them, that
// one included.
func Siblings(cpu int) []int {
	list, err := ParseCPUList(readText("/sys/devices/system/cpu", "cpu"+strconv.Itoa(cpu), "topology/thread_siblings_list"))
	if err != nil || len(list) == 0 {
		return []int{cpu}
	}
	return list
}

// cpuModel names the model; some architectures give numbers only.
func cpuModel(c procfs.CPUInfo) string {
	name := strings.TrimSpace(c.ModelName)
	if name == "" {
		return strings.TrimSpace("unnamed " + c.VendorID)
	}
	if c.CPUFamily != "" && c.Model != "" {
		// Virtual machines often hide the name ("AMD EPYC"), not the numbers.
		name += " (family " + c.CPUFamily + " model " + c.Model + " stepping " + c.Stepping + ")"
	}
	return name
}

func mitigations(dir string) map[string]string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, e := range entries {
		// What the CPU is not affected by does not slow it down.
		if text := readText(dir, e.Name()); text != "" && text != "Not affected" {
			out[e.Name()] = text
		}
	}
	return out
}

// virtualisation names the hypervisor as far as it shows itself; empty on
// bare metal.
func virtualisation(c procfs.CPUInfo) string {
	hypervisor := false
	for _, flag := range c.Flags {
		hypervisor = hypervisor || flag == "hypervisor"
	}
	if kind := readText("/sys/hypervisor/type"); kind != "" {
		return kind
	}
	if maker := readText("/sys/class/dmi/id/sys_vendor"); maker != "" && hypervisor {
		return strings.TrimSpace(maker + " " + readText("/sys/class/dmi/id/product_name"))
	}
	clock := readText("/sys/devices/system/clocksource/clocksource0/available_clocksource")
	switch {
	case strings.Contains(clock, "kvm-clock"):
		return "kvm"
	case strings.Contains(clock, "hyperv"):
		return "hyper-v"
	case hypervisor:
		if devices, _ := filepath.Glob("/sys/bus/virtio/devices/*"); len(devices) > 0 {
			return "virtual machine (virtio)"
		}
		return "virtual machine"
	}
	return ""
}
