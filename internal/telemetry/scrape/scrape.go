// Package scrape reads the metrics of other programs while a trial runs:
// Prometheus expositions (text and protobuf), and a Prometheus server's range
// queries.
package scrape

import (
	"context"
	"io"
	"math"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/meshbench/meshbench"
)

// Limits of what is read.
const (
	defaultInterval = time.Second
	readTimeout     = 5 * time.Second
	maxExposition   = 32 << 20
	maxSeries       = 500 // of one source in one trial
)

// accepted are the formats that are asked for, the terse one first.
const accepted = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"

// Reader reads sources.
type Reader struct {
	Client *http.Client
}

// sample is one series at one moment.
type sample struct {
	name  string // with its labels
	kind  meshbench.MetricKind
	value float64
}

// Watch reads the sources now and then until the function that it returns is
// called, which reads once more and returns the series of this time. A source
// that cannot be read has no series; the errors say why.
func (r Reader) Watch(ctx context.Context, sources []meshbench.MetricSource) (end func() ([]meshbench.MetricSeries, []error)) {
	begin := time.Now()
	ctx, stop := context.WithCancel(ctx)
	collections := make([]*collection, len(sources))
	var group sync.WaitGroup
	for i, s := range sources {
		if s.Query != "" {
			continue
		}
		c := &collection{source: s, begin: begin, series: map[string]*counted{}}
		collections[i] = c
		group.Go(func() { c.run(ctx, r.Client) })
	}
	return func() ([]meshbench.MetricSeries, []error) {
		stop()
		group.Wait()
		out, errs := []meshbench.MetricSeries{}, []error(nil)
		for i, s := range sources {
			series, err := []meshbench.MetricSeries(nil), error(nil)
			if c := collections[i]; c != nil {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
				c.read(last, r.Client)
				cancel()
				series, err = c.result(), c.err
			} else {
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeout)
				series, err = Query(last, r.Client, s, begin, time.Now())
				cancel()
			}
			if err != nil {
				errs = append(errs, meshbench.Errorf(meshbench.Unavailable, "the metrics of %s at %s: %w", s.Name, s.URL, err))
			}
			out = append(out, series...)
		}
		return out, errs
	}
}

// collection is what was read of one exposition.
type collection struct {
	source meshbench.MetricSource
	begin  time.Time
	series map[string]*counted
	order  []string
	err    error // of a reading that failed, where none succeeded
	once   bool  // one succeeded
}

// counted is one series as it grows.
type counted struct {
	meshbench.MetricSeries
	last   float64
	lastAt float64
}

func (c *collection) run(ctx context.Context, client *http.Client) {
	interval := c.source.Interval.Std()
	if interval <= 0 {
		interval = defaultInterval
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		reading, cancel := context.WithTimeout(ctx, readTimeout)
		c.read(reading, client)
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// read takes one reading.
func (c *collection) read(ctx context.Context, client *http.Client) {
	samples, err := Read(ctx, client, c.source)
	if err != nil {
		if !c.once && (c.err == nil || ctx.Err() == nil) {
			c.err = err
		}
		return
	}
	c.once, c.err = true, nil
	now := time.Since(c.begin).Seconds()
	for _, s := range samples {
		c.add(s, now)
	}
}

// add appends a sample. A counter that is smaller than it was has begun anew:
// all that it shows has been counted since (as Prometheus's rate() takes it).
func (c *collection) add(s sample, now float64) {
	if math.IsNaN(s.value) || math.IsInf(s.value, 0) {
		return
	}
	k, known := c.series[s.name]
	if !known {
		if len(c.order) == maxSeries {
			return
		}
		k = &counted{MetricSeries: meshbench.MetricSeries{Source: c.source.Name, Series: s.name, Kind: s.kind, Points: [][2]float64{}}}
		c.series[s.name] = k
		c.order = append(c.order, s.name)
		if s.kind == meshbench.CounterMetric {
			k.last, k.lastAt = s.value, now
			return
		}
	}
	if s.kind != meshbench.CounterMetric {
		k.Points = append(k.Points, [2]float64{now, s.value})
		return
	}
	grown := s.value - k.last
	if grown < 0 {
		grown = s.value
		k.Resets++
	}
	k.Increase += grown
	if now > k.lastAt {
		k.Points = append(k.Points, [2]float64{now, grown / (now - k.lastAt)})
		k.Seconds += now - k.lastAt
	}
	k.last, k.lastAt = s.value, now
}

// result returns what was collected, in alphabetical order.
func (c *collection) result() []meshbench.MetricSeries {
	var out []meshbench.MetricSeries
	for _, name := range c.order {
		k := c.series[name]
		if len(k.Points) > 0 {
			out = append(out, k.MetricSeries)
		}
		if mean, ok := c.mean(k); ok {
			out = append(out, mean)
		}
	}
	slices.SortFunc(out, func(a, b meshbench.MetricSeries) int { return strings.Compare(a.Series, b.Series) })
	return out
}

// mean makes a series of the means out of the sum of a histogram or summary:
// what was added to it between two readings by what was added to the count.
func (c *collection) mean(sum *counted) (meshbench.MetricSeries, bool) {
	name, labels, _ := strings.Cut(sum.Series, "{")
	base, ok := strings.CutSuffix(name, "_sum")
	if labels != "" {
		labels = "{" + labels
	}
	count := c.series[base+"_count"+labels]
	if !ok || count == nil || len(count.Points) != len(sum.Points) {
		return meshbench.MetricSeries{}, false
	}
	out := meshbench.MetricSeries{Source: sum.Source, Series: base + "_mean" + labels, Kind: meshbench.GaugeMetric, Points: [][2]float64{}}
	for i, p := range sum.Points {
		if n := count.Points[i]; n[1] > 0 && n[0] == p[0] {
			out.Points = append(out.Points, [2]float64{p[0], p[1] / n[1]})
		}
	}
	return out, len(out.Points) > 0
}

// Read reads an exposition once and returns the series that the source wants.
func Read(ctx context.Context, client *http.Client, source meshbench.MetricSource) ([]sample, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, source.URL, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", accepted)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, meshbench.Errorf(meshbench.Unavailable, "it answers %s", response.Status)
	}
	var out []sample
	decoder := expfmt.NewDecoder(io.LimitReader(response.Body, maxExposition), format(response.Header))
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); err == io.EOF {
			return out, nil
		} else if err != nil {
			return nil, meshbench.Errorf(meshbench.Unavailable, "this is no Prometheus exposition: %w", err)
		}
		if wanted(source.Series, family.GetName()) {
			out = appendFamily(out, &family)
		}
	}
}

// format is that of an answer; what names none is text.
func format(h http.Header) expfmt.Format {
	if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); err == nil && media == expfmt.ProtoType {
		return expfmt.NewFormat(expfmt.TypeProtoDelim)
	}
	return expfmt.NewFormat(expfmt.TypeTextPlain)
}

func wanted(series []string, name string) bool {
	if len(series) == 0 {
		return true
	}
	return slices.ContainsFunc(series, func(s string) bool {
		if begin, ok := strings.CutSuffix(s, "*"); ok {
			return strings.HasPrefix(name, begin)
		}
		return s == name || s == name+"_count" || s == name+"_sum"
	})
}

func appendFamily(out []sample, f *dto.MetricFamily) []sample {
	for _, m := range f.Metric {
		add := func(suffix string, kind meshbench.MetricKind, value float64) {
			out = append(out, sample{seriesName(f.GetName()+suffix, m.Label), kind, value})
		}
		switch f.GetType() {
		case dto.MetricType_COUNTER:
			add("", meshbench.CounterMetric, m.GetCounter().GetValue())
		case dto.MetricType_GAUGE:
			add("", meshbench.GaugeMetric, m.GetGauge().GetValue())
		case dto.MetricType_UNTYPED:
			add("", untyped(f.GetName()), m.GetUntyped().GetValue())
		case dto.MetricType_SUMMARY:
			add("_count", meshbench.CounterMetric, float64(m.GetSummary().GetSampleCount()))
			add("_sum", meshbench.CounterMetric, m.GetSummary().GetSampleSum())
		case dto.MetricType_HISTOGRAM:
			h := m.GetHistogram()
			count := float64(h.GetSampleCount())
			if h.SampleCountFloat != nil {
				count = h.GetSampleCountFloat()
			}
			add("_count", meshbench.CounterMetric, count)
			add("_sum", meshbench.CounterMetric, h.GetSampleSum())
		}
	}
	return out
}

// untyped is what a metric without a type is, by the custom of names.
func untyped(name string) meshbench.MetricKind {
	for _, end := range []string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, end) {
			return meshbench.CounterMetric
		}
	}
	return meshbench.GaugeMetric
}

// seriesName writes a metric as Prometheus does, labels in order.
func seriesName(name string, labels []*dto.LabelPair) string {
	m := model.Metric{model.MetricNameLabel: model.LabelValue(name)}
	for _, l := range labels {
		m[model.LabelName(l.GetName())] = model.LabelValue(l.GetValue())
	}
	return m.String()
}
