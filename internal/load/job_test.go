package load

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshbench/meshbench"
)

func goodJob() Job {
	return Job{
		Target: meshbench.Target{URL: "http://127.0.0.1:1/"}, Rate: 100, KeepAlive: true,
		Duration: meshbench.Duration(time.Second),
	}.WithDefaults()
}

func TestValidate(t *testing.T) {
	if err := goodJob().Validate(); err != nil {
		t.Fatalf("a good job: %v", err)
	}
	for _, c := range []struct {
		name, hint string
		change     func(*Job)
	}{
		{"https", "http://", func(j *Job) { j.Target.URL = "https://127.0.0.1/" }},
		{"no scheme", "http://", func(j *Job) { j.Target.URL = "127.0.0.1:80" }},
		{"no host", "http://", func(j *Job) { j.Target.URL = "http:///x" }},
		{"port", "", func(j *Job) { j.Target.URL = "http://h:99999/" }},
		{"user", "Authorization", func(j *Job) { j.Target.URL = "http://u:p@h/" }},
		{"address", "127.0.0.1:8080", func(j *Job) { j.Address = "localhost:80" }},
		{"method", "GET", func(j *Job) { j.Request.Method = "GET /" }},
		{"connect", "GET", func(j *Job) { j.Request.Method = "CONNECT" }},
		{"path", "/a%20b", func(j *Job) { j.Request.Path = "/a b" }},
		{"relative path", "begins with /", func(j *Job) { j.Request.Path = "x" }},
		{"host", "", func(j *Job) { j.Target.Host = "a\r\nb" }},
		{"header name", "tokens", func(j *Job) { j.Request.Headers = map[string]string{"a b": "c"} }},
		{"header value", "control", func(j *Job) { j.Request.Headers = map[string]string{"a": "b\r\nc: d"} }},
		{"framing header", "body", func(j *Job) { j.Request.Headers = map[string]string{"Content-Length": "3"} }},
		{"body", "", func(j *Job) { j.Request.BodyBytes = -1 }},
		{"large body", "", func(j *Job) { j.Request.BodyBytes = maxBody + 1 }},
		{"status", "599", func(j *Job) { j.Assertions = []meshbench.Assertion{{Status: 600}} }},
		{"no rate", "", func(j *Job) { j.Rate = 0 }},
		{"rate", "", func(j *Job) { j.Rate = 1e9 }},
		{"arrivals", "poisson", func(j *Job) { j.Arrivals = "bursts" }},
		{"connections", "", func(j *Job) { j.Connections = -1 }},
		{"timeout", "", func(j *Job) { j.Timeout = meshbench.Duration(2 * time.Hour) }},
		{"duration", "", func(j *Job) { j.Duration = 0 }},
		{"warmup", "", func(j *Job) { j.Warmup = -1 }},
		{"worker", "", func(j *Job) { j.WorkerIndex = 1 }},
		{"cpu", "", func(j *Job) { j.CPUs = []int{-1} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := goodJob()
			c.change(&j)
			var e *meshbench.Error
			if err := j.Validate(); !errors.As(err, &e) || e.Code != meshbench.Invalid || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("%v (%+v)", err, e)
			}
		})
	}
}

func TestRequest(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Job)
		want   string
	}{
		{"default", func(*Job) {}, "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: meshbench\r\n\r\n"},
		{"closing", func(j *Job) { j.KeepAlive = false }, "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: meshbench\r\nConnection: close\r\n\r\n"},
		{"path of the URL", func(j *Job) { j.Target.URL = "http://h/a%20b?c=d"; j.Request.Path = "/" }, "GET /a%20b?c=d HTTP/1.1\r\nHost: h\r\nUser-Agent: meshbench\r\n\r\n"},
		{"both paths", func(j *Job) { j.Target.URL = "http://h/v1/?k=1"; j.Request.Path = "/x?y=2" }, "GET /v1/x?k=1&y=2 HTTP/1.1\r\nHost: h\r\nUser-Agent: meshbench\r\n\r\n"},
		{"host", func(j *Job) { j.Target.Host = "echo.test" }, "GET / HTTP/1.1\r\nHost: echo.test\r\nUser-Agent: meshbench\r\n\r\n"},
		{"headers", func(j *Job) {
			j.Request.Headers = map[string]string{"X-B": "2", "X-A": "1", "User-Agent": "me", "host": "other"}
		}, "GET / HTTP/1.1\r\nHost: other\r\nUser-Agent: me\r\nX-A: 1\r\nX-B: 2\r\n\r\n"},
		{"empty body", func(j *Job) { j.Request.Method = "POST" }, "POST / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: meshbench\r\nContent-Length: 0\r\n\r\n"},
		{"body", func(j *Job) { j.Request.Method, j.Request.Body = "PUT", "hi" }, "PUT / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: meshbench\r\nContent-Length: 2\r\n\r\nhi"},
		{"body of zeros", func(j *Job) { j.Request.BodyBytes = 2 }, "GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\nUser-Agent: meshbench\r\nContent-Length: 2\r\n\r\n\x00\x00"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := goodJob()
			c.change(&j)
			if err := j.Validate(); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, string(j.request())); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestJobTravelsAsJSON(t *testing.T) {
	j := goodJob()
	j.Rate, j.Seed, j.CPUs = meshbench.RateMax, 1<<63+1, []int{3}
	data, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	var back Job
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(j, back); d != "" {
		t.Error(d)
	}
}
