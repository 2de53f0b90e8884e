package scrape

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/meshbench/meshbench"
)

// exposition serves a registry until the test ends.
func exposition(t *testing.T, r *prometheus.Registry) string {
	t.Helper()
	s := httptest.NewServer(promhttp.HandlerFor(r, promhttp.HandlerOpts{}))
	t.Cleanup(s.Close)
	return s.URL
}

func find(t *testing.T, all []meshbench.MetricSeries, series string) meshbench.MetricSeries {
	t.Helper()
	var names []string
	for _, s := range all {
		if s.Series == series {
			return s
		}
		names = append(names, s.Series)
	}
	t.Fatalf("no series %s among %v", series, names)
	return meshbench.MetricSeries{}
}

// TestWatchFollowsAProgram reads a real exposition of each format while its
// metrics grow.
func TestWatchFollowsAProgram(t *testing.T) {
	for _, format := range []string{"protobuf", "text"} {
		t.Run(format, func(t *testing.T) {
			registry := prometheus.NewRegistry()
			requests := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total"}, []string{"code", "a"})
			load := prometheus.NewGauge(prometheus.GaugeOpts{Name: "load"})
			took := prometheus.NewHistogram(prometheus.HistogramOpts{Name: "took_seconds", NativeHistogramBucketFactor: 1.1})
			sizes := prometheus.NewSummary(prometheus.SummaryOpts{Name: "sizes"})
			registry.MustRegister(requests, load, took, sizes)
			handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{DisableCompression: true})
			var asked atomic.Value
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked.Store(r.Header.Get("Accept"))
				if format == "protobuf" {
					handler.ServeHTTP(w, r)
					return
				}
				r.Header.Set("Accept", "text/plain")
				handler.ServeHTTP(w, r)
				_, _ = fmt.Fprint(w, "untyped_total 5\nother 7\n")
			}))
			t.Cleanup(s.Close)
			url := s.URL
			requests.WithLabelValues("200", "x").Add(1000) // before the trial
			load.Set(3)
			took.Observe(100)
			watch := Reader{Client: http.DefaultClient}.Watch(t.Context(), []meshbench.MetricSource{{Name: "app", URL: url, Interval: meshbench.Duration(20 * time.Millisecond)}})
			time.Sleep(60 * time.Millisecond)
			requests.WithLabelValues("200", "x").Add(50)
			load.Set(5)
			took.Observe(0.25)
			took.Observe(0.75)
			sizes.Observe(7)
			all, errs := watch()
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			if c := find(t, all, `requests_total{a="x", code="200"}`); c.Kind != meshbench.CounterMetric || c.Increase != 50 || c.Resets != 0 || c.Source != "app" || c.Seconds <= 0 || len(c.Points) < 2 {
				t.Errorf("a counter: %+v", c)
			}
			g := find(t, all, "load")
			if g.Kind != meshbench.GaugeMetric || g.Points[0][1] != 3 || g.Points[len(g.Points)-1][1] != 5 {
				t.Errorf("a gauge: %+v", g)
			}
			if c := find(t, all, "took_seconds_count"); c.Increase != 2 {
				t.Errorf("a histogram's count: %+v", c)
			}
			if s := find(t, all, "took_seconds_sum"); math.Abs(s.Increase-1) > 1e-9 {
				t.Errorf("a histogram's sum: %+v", s)
			}
			if m := find(t, all, "took_seconds_mean"); len(m.Points) == 0 || math.Abs(m.Points[len(m.Points)-1][1]-0.5) > 0.26 {
				t.Errorf("a histogram's mean: %+v", m)
			}
			if s := find(t, all, "sizes_sum"); s.Increase != 7 {
				t.Errorf("a summary: %+v", s)
			}
			if !strings.HasPrefix(asked.Load().(string), "application/vnd.google.protobuf") {
				t.Errorf("asked for %q: the terse format comes first", asked.Load())
			}
			if format == "text" {
				if u := find(t, all, "untyped_total"); u.Kind != meshbench.CounterMetric {
					t.Errorf("%+v", u)
				}
				if u := find(t, all, "other"); u.Kind != meshbench.GaugeMetric {
					t.Errorf("%+v", u)
				}
			}
		})
	}
}

// TestACounterBeginsAnew is a program that is started again in the middle.
func TestACounterBeginsAnew(t *testing.T) {
	var answer atomic.Pointer[string]
	says := func(text string) { answer.Store(&text) }
	says("# TYPE n_total counter\nn_total 100\n")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := *answer.Load(); text != "" {
			_, _ = fmt.Fprint(w, text)
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer s.Close()
	c := &collection{source: meshbench.MetricSource{Name: "a", URL: s.URL}, begin: time.Now(), series: map[string]*counted{}}
	for _, text := range []string{"# TYPE n_total counter\nn_total 100\n", "n_total{} 130\n", "", "n_total 20\n", "n_total 25\n", "n_total NaN\n", "n_total 25\n"} {
		says(text)
		c.read(t.Context(), s.Client())
	}
	got := c.result()
	if c.err != nil || len(got) != 1 || got[0].Increase != 30+20+5 || got[0].Resets != 1 || len(got[0].Points) != 4 {
		t.Errorf("%+v (%v)", got, c.err)
	}
}

func TestSourcesThatCannotBeRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + l.Addr().String()
	l.Close()
	wrong := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/404" {
			w.WriteHeader(404)
		}
		_, _ = fmt.Fprint(w, "<html>no metrics</html>")
	}))
	defer wrong.Close()
	_, errs := Reader{Client: http.DefaultClient}.Watch(context.Background(), []meshbench.MetricSource{
		{Name: "gone", URL: gone}, {Name: "page", URL: wrong.URL}, {Name: "nowhere", URL: wrong.URL + "/404"}, {Name: "server", URL: wrong.URL, Query: "up"},
	})()
	if len(errs) != 4 {
		t.Fatalf("%v", errs)
	}
	for i, want := range []string{"gone", "no Prometheus exposition", "404", "none of Prometheus's answers"} {
		if !strings.Contains(errs[i].Error(), want) {
			t.Errorf("%v, want %q in it", errs[i], want)
		}
	}
}

func TestSeriesAreChosen(t *testing.T) {
	for _, c := range []struct {
		series []string
		name   string
		want   bool
	}{
		{nil, "a", true}, {[]string{"a"}, "a", true}, {[]string{"a"}, "ab", false}, {[]string{"a*"}, "ab", true}, {[]string{"x", "a_sum"}, "a", true}, {[]string{"*"}, "q", true},
	} {
		if got := wanted(c.series, c.name); got != c.want {
			t.Errorf("%v wants %s: %v", c.series, c.name, got)
		}
	}
	registry := prometheus.NewRegistry()
	many := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "many"}, []string{"i"})
	registry.MustRegister(many)
	for i := range maxSeries + 100 {
		many.WithLabelValues(fmt.Sprint(i)).Set(1)
	}
	all, errs := Reader{Client: http.DefaultClient}.Watch(t.Context(), []meshbench.MetricSource{{Name: "a", URL: exposition(t, registry)}})()
	if len(errs) > 0 || len(all) != maxSeries {
		t.Errorf("%d series, want %d (%v)", len(all), maxSeries, errs)
	}
}
