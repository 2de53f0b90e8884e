package scrape

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/meshbench/meshbench"
)

// maxAnswer bounds what a server may answer to a query.
const maxAnswer = 64 << 20

// Query asks a Prometheus server (or one that speaks its API) for a source's
// query over a time. Points are as the server gives them: a rate is up to the
// query (Prometheus HTTP API, "Range queries").
func Query(ctx context.Context, client *http.Client, source meshbench.MetricSource, from, to time.Time) ([]meshbench.MetricSeries, error) {
	step := source.Interval.Std()
	if step <= 0 {
		step = defaultInterval
	}
	seconds := func(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
	form := url.Values{
		"query": {source.Query}, "start": {seconds(from)}, "end": {seconds(to)},
		"step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)},
	}
	address := strings.TrimSuffix(source.URL, "/") + "/api/v1/query_range"
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			ResultType string       `json:"resultType"`
			Result     model.Matrix `json:"result"`
		} `json:"data"`
	}
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("it answers %s, which is none of Prometheus's answers: %w", response.Status, err)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("it refuses the query: %s", answer.Error)
	}
	if answer.Data.ResultType != "matrix" {
		return nil, fmt.Errorf("the query yields a %s, expected a range of values", answer.Data.ResultType)
	}
	var out []meshbench.MetricSeries
	for _, stream := range answer.Data.Result {
		if len(out) == maxSeries {
			break
		}
		s := meshbench.MetricSeries{Source: source.Name, Series: stream.Metric.String(), Kind: meshbench.GaugeMetric, Points: [][2]float64{}}
		if len(stream.Metric) == 0 {
			s.Series = source.Query
		}
		for _, v := range stream.Values {
			if x := float64(v.Value); !math.IsNaN(x) && !math.IsInf(x, 0) {
				s.Points = append(s.Points, [2]float64{v.Timestamp.Time().Sub(from).Seconds(), x})
			}
		}
		if len(s.Points) > 0 {
			out = append(out, s)
		}
	}
	return out, nil
}
