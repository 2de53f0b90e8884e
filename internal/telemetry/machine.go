package telemetry

// CPU is the time of one logical CPU since boot, in nanoseconds (the kernel
// counts in steps of 10 ms).
type CPU struct {
	Number int
	Busy   uint64 // user, nice, system, interrupts
	Idle   uint64 // idle, waiting for disks
	Steal  uint64 // taken by the hypervisor for others
}

// Machine is what all CPUs did since boot.
type Machine []CPU

// Interval is what the machine did between two readings.
type Interval struct {
	Seconds    float64 // mean over the CPUs of the time that each accounts for
	BusyCores  float64 // CPUs' worth of work done
	StealShare float64 // of all CPUs' time
	CPUs       []CPUInterval
}

// CPUInterval is one CPU in an Interval, as shares of its time.
type CPUInterval struct {
	Number      int
	Busy, Steal float64
}

// Since returns what happened from before to m. A CPU that one of them lacks
// (it was plugged) is left out.
func (m Machine) Since(before Machine) Interval {
	old := map[int]CPU{}
	for _, c := range before {
		old[c.Number] = c
	}
	var out Interval
	var busy, steal, all float64
	for _, c := range m {
		o, ok := old[c.Number]
		if !ok {
			continue
		}
		b, i, s := since(c.Busy, o.Busy), since(c.Idle, o.Idle), since(c.Steal, o.Steal)
		busy, steal, all = busy+b, steal+s, all+b+i+s
		ci := CPUInterval{Number: c.Number}
		if t := b + i + s; t > 0 {
			ci.Busy, ci.Steal = b/t, s/t
		}
		out.CPUs = append(out.CPUs, ci)
	}
	if all > 0 {
		out.Seconds = all / float64(len(out.CPUs)) / 1e9
		out.BusyCores = busy / all * float64(len(out.CPUs))
		out.StealShare = steal / all
	}
	return out
}

// since tolerates counters that fall: idle and steal do so now and then
// (proc(5)).
func since(now, before uint64) float64 {
	if now < before {
		return 0
	}
	return float64(now - before)
}

// NeighbourCores is what processes that are not ours used in an interval, in
// CPUs' worth of work: what the machine did, less what ours used. Ours is in
// nanoseconds. Never below 0: the machine's figures are coarser than ours.
func (i Interval) NeighbourCores(oursNanos uint64) float64 {
	if i.Seconds <= 0 {
		return 0
	}
	return max(0, i.BusyCores-float64(oursNanos)/1e9/i.Seconds)
}
