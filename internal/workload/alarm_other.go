//go:build !linux

package workload

import (
	"context"
	"time"
)

// alarms wait for a time, as exactly as Go's timers do.
type alarms struct{}

func (*alarms) wait(ctx context.Context, d time.Duration) { pause(ctx, d) }
func (*alarms) close()                                    {}
