package statsd

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTake(t *testing.T) {
	r := newReceiver()
	for _, datagram := range []string{
		"consul.inbound.conns.echo:1.000000|g\nconsul.inbound.conns.echo:2.000000|g\n",
		"consul.inbound.conns.echo:1|g\nconsul.inbound.conns.echo:3|g",
		"steps:5|g\nsteps:+2|g\nsteps:-4|g\n",
		"bytes:10|c\nbytes:10|c|@0.5\n",
		"took:3.2|ms\nuniques:4|s\nspread:4|h\n",
		"nonsense\nno.type:3\n:3|g\nodd:x|c\nodd:1|q\nodd:1|c|@0\n",
	} {
		r.take(datagram)
	}
	want := Metrics{
		Gauges:   map[string]Gauge{"consul.inbound.conns.echo": {Value: 3, Rises: 4}, "steps": {Value: 3, Rises: 7}},
		Counters: map[string]float64{"bytes": 30}, Malformed: 6,
	}
	if difference := cmp.Diff(want, r.metrics()); difference != "" {
		t.Error(difference)
	}
}

func FuzzTake(f *testing.F) {
	f.Add("a:1|g\nb:+1|c|@0.1")
	f.Fuzz(func(t *testing.T, datagram string) {
		r := newReceiver()
		r.take(datagram)
		for name, g := range r.metrics().Gauges {
			if name == "" || g.Rises < 0 {
				t.Errorf("%q: %+v", name, g)
			}
		}
	})
}

// TestServe sends real datagrams; what was received is asked for until it is
// there, since a datagram is not answered.
func TestServe(t *testing.T) {
	free := func(network string) string {
		if network == "udp" {
			c, err := net.ListenPacket("udp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return c.LocalAddr().String()
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	o := Options{Listen: free("udp"), Admin: free("tcp")}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, o) }()
	for {
		response, err := http.Get("http://" + o.Admin + ReadyPath)
		if err == nil {
			response.Body.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	sender, err := net.Dial("udp", o.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	fmt.Fprint(sender, "a:1|g\na:0|g\na:1|g\n")
	for {
		m, err := Read(t.Context(), http.DefaultClient, o.Admin)
		if err != nil {
			t.Fatal(err)
		}
		if m.Gauges["a"].Rises == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
