package workload

import (
	"math/bits"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// meter counts what a service does. Its cost is in every latency that is
// measured: of requests that are simply answered only one in timedOneIn is
// timed, and those with status 200 are what is left of all. It becomes
// Prometheus metrics when somebody asks.
type meter struct {
	inFlight atomic.Int64
	codes    [600]atomic.Uint64 // by status; 0: cut, or the client was gone
	buckets  [buckets + 1]atomic.Uint64
	nanos    atomic.Uint64 // sum of the durations
	// base is any moment: the time since it is one reading of one clock, half
	// of what time.Now costs.
	base time.Time
}

// timedOneIn is how many requests that are simply answered come on one whose
// duration is measured.
const timedOneIn = 16

// Buckets of the durations: 25 us, and each twice the one before.
const (
	buckets     = 20
	firstBucket = 25_000 // nanoseconds
)

func (m *meter) begin() time.Duration {
	m.inFlight.Add(1)
	return time.Since(m.base)
}

// end counts a request by its status; 0: it was cut.
func (m *meter) end(begin time.Duration, code int) {
	d := uint64(max(0, time.Since(m.base)-begin))
	m.inFlight.Add(-1)
	if code < 0 || code >= len(m.codes) {
		code = 0
	}
	m.codes[code].Add(1)
	m.nanos.Add(d)
	m.buckets[bucketOf(d)].Add(1)
}

// bucketOf returns the first bucket whose bound is no less than a duration.
func bucketOf(nanos uint64) int {
	return min(buckets, bits.Len64((max(nanos, 1)-1)/firstBucket))
}

// collector is a meter as Prometheus sees it.
type collector struct {
	*meter
	all                          *atomic.Uint64 // requests so far
	requests, duration, inFlight *prometheus.Desc
}

func (c collector) Describe(out chan<- *prometheus.Desc) {
	out <- c.requests
	out <- c.duration
	out <- c.inFlight
}

func (c collector) Collect(out chan<- prometheus.Metric) {
	// Those in flight are in all already.
	answered := c.all.Load() - min(c.all.Load(), uint64(max(0, c.meter.inFlight.Load())))
	others := uint64(0)
	for code := range c.codes {
		n := c.codes[code].Load()
		if code == http.StatusOK {
			continue
		}
		if others += n; n > 0 {
			out <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(n), strconv.Itoa(code))
		}
	}
	out <- prometheus.MustNewConstMetric(c.requests, prometheus.CounterValue, float64(answered-min(answered, others)), "200")
	count, cumulative, bound := uint64(0), map[float64]uint64{}, float64(firstBucket)/1e9
	for i := range buckets {
		count += c.buckets[i].Load()
		cumulative[bound] = count
		bound *= 2
	}
	count += c.buckets[buckets].Load()
	out <- prometheus.MustNewConstHistogram(c.duration, count, float64(c.nanos.Load())/1e9, cumulative)
	out <- prometheus.MustNewConstMetric(c.inFlight, prometheus.GaugeValue, float64(c.meter.inFlight.Load()))
}

// metrics serves a service's meter, beside what Go knows of the process.
func (s *service) metrics() http.Handler {
	labels := prometheus.Labels{"service": s.name, "instance": strconv.Itoa(s.instance)}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{
		meter: &s.meter,
		all:   &s.requests,
		requests: prometheus.NewDesc("meshbench_requests_total",
			"Requests that were answered, by status; 0: the connection was cut.", []string{"code"}, labels),
		duration: prometheus.NewDesc("meshbench_request_duration_seconds",
			"Time in the service's handler, its own time and its calls included; of requests that are simply answered, one in 16.", nil, labels),
		inFlight: prometheus.NewDesc("meshbench_requests_in_flight",
			"Requests that are being answered.", nil, labels),
	})
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
