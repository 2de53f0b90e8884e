package telemetry

// Reading is what a process and its descendants have used so far. Every
// figure but the memory never falls from one reading to the next.
type Reading struct {
	Alive                  bool
	UserNanos, SystemNanos uint64
	AnonBytes, FileBytes   uint64 // of the living
}

// split shares a sum of nanoseconds between user and system as the ticks
// say, so that neither falls below the last reading and both make the sum.
func split(last Reading, sum, userTicks, systemTicks uint64) Reading {
	if before := last.UserNanos + last.SystemNanos; sum < before {
		sum = before
	}
	user := sum
	if ticks := userTicks + systemTicks; ticks > 0 {
		user = uint64(float64(sum) * (float64(userTicks) / float64(ticks)))
	}
	user = max(user, last.UserNanos)
	user = min(user, sum-last.SystemNanos)
	last.UserNanos, last.SystemNanos = user, sum-user
	return last
}
