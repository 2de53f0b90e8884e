package cli

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/load"
	"github.com/meshbench/meshbench/internal/report"
)

func newLoad(e *env) *cobra.Command {
	var rate, arrivals, method, body, host, resolve, out string
	var headers []string
	var connections, status int
	var keepAlive bool
	var duration, warmup, timeout time.Duration
	var seed uint64
	// Words of the contract whose engine is not built: refused, never ignored.
	later := map[string]string{
		"cacert": "HTTPS is not built yet: measure http:// URLs", "cert": "HTTPS is not built yet: measure http:// URLs",
		"key": "HTTPS is not built yet: measure http:// URLs", "insecure": "HTTPS is not built yet: measure http:// URLs",
		"streams": "HTTP/1.1 has one request at a time on a connection: use --connections", "protocol": "this version speaks http1",
	}
	cmd := &cobra.Command{
		Use:   "load URL",
		Short: "Send load to one URL and tell its latency, the way wrk or hey do",
		Long: `Load offers requests to a URL at a fixed rate (open loop: a slow answer does not slow
the next request down, and its latency runs from the intended start), or as fast as
answers come with --rate max (closed loop, as wrk does). Only send load to what is yours.`,
		Example: `  meshbench load http://127.0.0.1:8080/
  meshbench load http://127.0.0.1:8080/ --rate 20000 --duration 30s
  meshbench load http://127.0.0.1:8080/ --rate max --connections 64
  meshbench load http://127.0.0.1:8080/orders --method POST --header 'content-type: application/json' --body @order.json`,
		Args: arguments(1, 1, "one URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, why := range later {
				if !cmd.Flags().Changed(name) {
					continue
				}
				if name == "protocol" && cmd.Flag(name).Value.String() == string(meshbench.HTTP1) {
					continue
				}
				return meshbench.Errorf(meshbench.Invalid, "--%s cannot be used yet", name).WithHint("%s", why)
			}
			job := load.Job{
				Target:   meshbench.Target{URL: args[0], Host: host},
				Request:  meshbench.Request{Method: method, Headers: map[string]string{}},
				Arrivals: meshbench.Arrivals(arrivals), Connections: connections, KeepAlive: keepAlive,
				Timeout: meshbench.Duration(timeout), Warmup: meshbench.Duration(warmup), Duration: meshbench.Duration(duration),
				Seed: seed, Calibration: load.DefaultCalibration,
			}
			var err error
			if job.Rate, err = meshbench.ParseRate(rate); err != nil {
				return err
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, ":")
				if !ok {
					return meshbench.Errorf(meshbench.Invalid, "the header %q has no colon", h).WithHint("as in --header 'accept: text/plain'")
				}
				job.Request.Headers[strings.TrimSpace(name)] = strings.TrimSpace(value)
			}
			if file, ok := strings.CutPrefix(body, "@"); ok {
				content, err := os.ReadFile(file)
				if err != nil {
					return meshbench.Errorf(meshbench.Invalid, "--body: %w", err)
				}
				body = string(content)
			}
			job.Request.Body = body
			if status != 0 {
				job.Assertions = []meshbench.Assertion{{Status: status}}
			}
			if job.Address, err = resolved(job.Target.URL, resolve); err != nil {
				return err
			}
			job = job.WithDefaults()
			if err := job.Validate(); err != nil {
				return err
			}
			a, err := e.app()
			if err != nil {
				return err
			}
			p := newProgress(e)
			p.say("%s to %s for %s after %s of warm-up", offered(job), job.Target.URL, job.Duration, job.Warmup)
			result, err := a.Load(cmd.Context(), job, p.load(job))
			p.end()
			if err != nil {
				return err
			}
			w, done, err := e.create(out)
			if err != nil {
				return err
			}
			switch e.output {
			case "json":
				err = report.LoadJSON(w, result)
			case "markdown":
				err = report.LoadMarkdown(w, result)
			default:
				width, _ := terminal(w)
				err = report.LoadTable(w, result, report.TableOptions{Color: out == "" && e.colour(), Width: width})
			}
			if closeErr := done(); err == nil {
				err = closeErr
			}
			switch {
			case err != nil:
				return err
			case cmd.Context().Err() != nil:
				return exit(exitInterrupted)
			case result.Completed == 0:
				return exit(exitError)
			case result.Verdict.Status == meshbench.InvalidTest:
				return exit(exitInvalid)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&rate, "rate", "500", "requests per second, or max for a closed loop")
	f.StringVar(&arrivals, "arrivals", string(meshbench.Poisson), "poisson|constant")
	f.IntVar(&connections, "connections", 32, "connections")
	f.BoolVar(&keepAlive, "keep-alive", true, "keep connections; false opens one per request")
	f.DurationVar(&duration, "duration", 10*time.Second, "counted time")
	f.DurationVar(&warmup, "warmup", time.Second, "load before it that is not counted")
	f.DurationVar(&timeout, "timeout", 10*time.Second, "of a request, from its intended start")
	f.StringVar(&method, "method", "GET", "HTTP method")
	f.StringArrayVar(&headers, "header", nil, "'name: value'; repeat it for more")
	f.StringVar(&body, "body", "", "TEXT or @FILE")
	f.IntVar(&status, "status", 0, "the status that every response must have (default: below 400)")
	f.StringVar(&host, "host", "", "Host header (default: the URL's)")
	f.StringVar(&resolve, "resolve", "", "address to connect to instead of the URL's host, as 127.0.0.1 or 127.0.0.1:8080")
	f.Uint64Var(&seed, "seed", 1, "of the arrivals")
	f.StringVar(&out, "out", "", "write the result to a file")
	f.String("protocol", string(meshbench.HTTP1), "http1")
	f.Int("streams", 0, "streams per connection (not with http1)")
	f.String("cacert", "", "CA for https (not built yet)")
	f.String("cert", "", "client certificate for https (not built yet)")
	f.String("key", "", "client key for https (not built yet)")
	f.Bool("insecure", false, "do not verify https (not built yet)")
	outputFlag(e, cmd, "table", "json", "markdown")
	return cmd
}

// resolved reads --resolve: an address, with the URL's port where it has none.
func resolved(target, resolve string) (string, error) {
	if resolve == "" {
		return "", nil
	}
	if _, err := netip.ParseAddrPort(resolve); err == nil {
		return resolve, nil
	}
	address, err := netip.ParseAddr(strings.Trim(resolve, "[]"))
	if err != nil {
		return "", meshbench.Errorf(meshbench.Invalid, "--resolve %q is no address", resolve).WithHint("as in --resolve 127.0.0.1 or --resolve 127.0.0.1:8080")
	}
	port := "80"
	if u, err := url.Parse(target); err == nil && u.Port() != "" {
		port = u.Port()
	}
	return net.JoinHostPort(address.String(), port), nil
}

func offered(job load.Job) string {
	if job.Rate.IsMax() {
		return "as many requests as are answered"
	}
	return job.Rate.String() + " requests/s (" + string(job.Arrivals) + ")"
}
