package behavior

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/meshbench/meshbench"
	"github.com/meshbench/meshbench/internal/behavior/origin"
	"github.com/meshbench/meshbench/internal/behavior/wire"
	"github.com/meshbench/meshbench/internal/mesh"
)

func ms(n int) meshbench.Duration { return meshbench.Duration(time.Duration(n) * time.Millisecond) }

// under is an exchange with policies in force.
func under(p Probe, policies ...meshbench.Policy) Probe {
	inner := p.Run
	for _, policy := range policies {
		if kind, err := policy.Kind(); err == nil {
			p.Policies = append(p.Policies, kind)
		}
	}
	p.Needs |= Proxy
	p.Run = func(ctx context.Context, b *Bed) (Finding, error) {
		if err := b.Apply(ctx, policies...); err != nil {
			// What a mesh has in general and not in this form, its driver
			// says itself.
			if meshbench.AsError(err).Code == meshbench.Invalid {
				return Finding{Unsupported, said(err)}, nil
			}
			return Finding{}, err
		}
		return inner(ctx, b)
	}
	return p
}

func custom(name, question, expected, reference string, run func(ctx context.Context, b *Bed) (Finding, error)) Probe {
	return Probe{Name: name, Question: question, Expected: expected, Reference: reference, Run: run}
}

func authorization(a meshbench.Authorization) meshbench.Policy {
	return meshbench.Policy{To: Echo, Authorization: &a}
}

// both sends one request that must be denied and one that must pass.
func both(name, question, expected, reference string, denied, passes Request) Probe {
	describe := func(r Request) string {
		method, target := r.Method, r.Target
		if method == "" {
			method = "GET"
		}
		if target == "" {
			target = "/"
		}
		return method + " " + target
	}
	return custom(name, question, expected, reference, func(ctx context.Context, b *Bed) (Finding, error) {
		no, arrivedNo, err := b.Ask(ctx, denied)
		if err != nil {
			return Finding{}, err
		}
		yes, arrivedYes, err := b.Ask(ctx, passes)
		if err != nil {
			return Finding{}, err
		}
		ok := no.Status == 403 && len(arrivedNo) == 0 && yes.Status == 200 && len(arrivedYes) == 1
		return decide(ok, "sent: %s: %s, %s; %s: %s, %s", describe(denied), no, seen(arrivedNo), describe(passes), yes, seen(arrivedYes))
	})
}

// deniedAlone is one request that must be answered with 403 by the mesh.
func deniedAlone(a Answer, records []origin.Record) (bool, string) {
	return a.Status == 403 && len(records) == 0, fmt.Sprintf("answer %s; %s", a, seen(records))
}

func authorizationProbes() []Probe {
	admin := authorization(meshbench.Authorization{Action: meshbench.Deny, Paths: []string{"/admin"}})
	bypass := func(name, question, target string) Probe {
		return under(exchange(name, question, "403, or the application gets a path outside of /admin", istioPaths, "GET "+target+" while /admin is denied",
			Request{Target: target}, nil, func(a Answer, records []origin.Record) (bool, string) {
				if len(records) == 0 {
					return a.Status/100 == 4, "answer " + a.String() + "; nothing arrived"
				}
				return false, "arrived as " + records[0].Message.Target() + "; answer " + a.String()
			}), admin)
	}
	return []Probe{
		under(exchange("authorization.deny", "What does a denied client get?", "403, and the application is not reached", envoyRBAC,
			"GET / as the client, who is denied", Request{}, nil, deniedAlone),
			authorization(meshbench.Authorization{Action: meshbench.Deny, From: []string{mesh.Client}})),
		under(exchange("authorization.allow", "Is a client let in that is allowed by name?", "200", envoyRBAC,
			"GET / as the client, who alone is allowed", Request{}, nil,
			answered(func(a Answer) (bool, string) { return a.Status == 200, "answer " + a.String() })),
			authorization(meshbench.Authorization{Action: meshbench.Allow, From: []string{mesh.Client}})),
		under(exchange("authorization.allow_another", "Is a client denied when only another one is allowed?", "403, and the application is not reached", istioAuthz,
			"GET / as the client, while only "+Other+" is allowed", Request{}, nil, deniedAlone),
			authorization(meshbench.Authorization{Action: meshbench.Allow, From: []string{Other}})),
		under(exchange("authorization.deny_wins", "Does a denial win over an allowance?", "403, and the application is not reached", istioAuthz,
			"GET / as the client, who is allowed and denied", Request{}, nil, deniedAlone),
			authorization(meshbench.Authorization{Action: meshbench.Allow, From: []string{mesh.Client}}),
			authorization(meshbench.Authorization{Action: meshbench.Deny, From: []string{mesh.Client}})),
		under(both("authorization.path", "Is one path denied and another one not?", "403 for the denied path, 200 for the other", istioAuthz,
			Request{Target: "/admin/x"}, Request{Target: "/public"}), admin),
		under(both("authorization.method", "Is one method denied and another one not?", "403 for the denied method, 200 for the other", istioAuthz,
			Request{Method: "DELETE"}, Request{}),
			authorization(meshbench.Authorization{Action: meshbench.Deny, Methods: []string{"DELETE"}})),
		bypass("authorization.path_encoded", "Does an encoded letter get around a denied path?", "/%61dmin/x"),
		bypass("authorization.path_slashes", "Does a doubled slash get around a denied path?", "//admin/x"),
		bypass("authorization.path_dots", "Do dot segments get around a denied path?", "/public/../admin/x"),
	}
}

// slowAnswer is an answer of the application that takes its time.
func slowAnswer(delay int) origin.Answer {
	a := canned(200, "late")
	a.DelayMS = delay
	return a
}

func timeoutProbes() []Probe {
	timeout := meshbench.Policy{To: Echo, Timeout: &meshbench.TimeoutPolicy{Request: ms(300)}}
	return []Probe{
		under(exchange("timeout.code", "Which code does a timeout give?", "504", gepTimeout,
			"GET, timeout 300 ms, answered after 5 s", Request{}, []origin.Answer{slowAnswer(5000)},
			answered(func(a Answer) (bool, string) { return a.Status == 504, "answer " + a.String() })), timeout),
		under(exchange("timeout.time", "Does a timeout come when it is due?", "not before it, and before the application would have answered", gepTimeout,
			"GET, timeout 300 ms, answered after 5 s", Request{}, []origin.Answer{slowAnswer(5000)},
			answered(func(a Answer) (bool, string) {
				in := a.Elapsed >= 290*time.Millisecond && a.Elapsed < 4500*time.Millisecond
				return in && a.Status >= 500, fmt.Sprintf("answer %s after %d ms", a, a.Elapsed.Milliseconds())
			})), timeout),
		under(exchange("timeout.in_time", "Is an answer that comes in time left alone?", "200", gepTimeout,
			"GET, timeout 300 ms, answered at once", Request{}, nil,
			answered(func(a Answer) (bool, string) { return a.Status == 200, "answer " + a.String() })), timeout),
		under(exchange("timeout.slow_body", "Does a timeout cover the body of an answer?", "the answer is ended before it is whole", gepTimeout,
			"GET, timeout 300 ms; the head of the answer comes at once, its body after 3 s", Request{},
			[]origin.Answer{{Pieces: []origin.Piece{{Text: "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"}, {AfterMS: 3000, Text: "late"}}}},
			answered(func(a Answer) (bool, string) { return a.Status == 504 || a.Err != nil, "answer " + a.String() })), timeout),
		under(custom("timeout.abandons", "Is the application's work given up at a timeout?", "the connection to the application ends before its answer", gepTimeout,
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				if err := b.Script(ctx, key, []origin.Answer{slowAnswer(3000)}); err != nil {
					return Finding{}, err
				}
				a := b.Do(ctx, Request{Key: key})
				abandoned := func(records []origin.Record) bool { return len(records) > 0 && records[0].Abandoned }
				records, err := b.Settled(ctx, key, abandoned)
				if err != nil {
					return Finding{}, err
				}
				what := "was kept open"
				if abandoned(records) {
					what = "ended"
				}
				return decide(abandoned(records), "sent: GET, timeout 300 ms, answered after 3 s; seen: %s; the application's connection %s", a, what)
			}), timeout),
	}
}

func retry(attempts int, perTry int, on ...meshbench.RetryOn) meshbench.Policy {
	return meshbench.Policy{To: Echo, Retry: &meshbench.RetryPolicy{Attempts: attempts, On: on, PerTryTimeout: ms(perTry)}}
}

func retryProbes() []Probe {
	failOnce := []origin.Answer{canned(503, "busy"), canned(200, "fine")}
	always := []origin.Answer{canned(503, "busy")}
	tries := func(want int, status int) judge {
		return func(a Answer, records []origin.Record) (bool, string) {
			return len(records) == want && a.Status == status, fmt.Sprintf("answer %s; %s", a, seen(records))
		}
	}
	hang := slowAnswer(5000)
	return []Probe{
		under(exchange("retry.happens", "Is a failed request sent again?", "200, after two attempts", gepRetry,
			"GET, retry on 5xx; answered with 503, then 200", Request{}, failOnce, tries(2, 200)), retry(2, 0, meshbench.RetryOn5xx)),
		under(custom("retry.attempts", "Is a request that always fails sent again as often as the policy says?", "once with 1, four times with 4", gepRetry,
			func(ctx context.Context, b *Bed) (Finding, error) {
				got := map[int]int{}
				for _, n := range []int{1, 4} {
					if err := b.Apply(ctx, retry(n, 0, meshbench.RetryOn5xx)); err != nil {
						return Finding{}, err
					}
					key := b.Key()
					if err := b.Script(ctx, key, always); err != nil {
						return Finding{}, err
					}
					_, records, err := b.Ask(ctx, Request{Key: key})
					if err != nil {
						return Finding{}, err
					}
					got[n] = len(records) - 1
				}
				return decide(got[1] == 1 && got[4] == 4, "sent: GET, always answered with 503; sent again %d times with 1 attempt after the first, %d times with 4", got[1], got[4])
			}), retry(1, 0, meshbench.RetryOn5xx)),
		under(exchange("retry.exhausted", "What does the client get when all attempts fail?", "the application's own last answer", gepRetry,
			"GET, 1 attempt after the first; 503 with a body", Request{}, []origin.Answer{canned(503, "busy"), canned(503, "still busy")},
			func(a Answer, records []origin.Record) (bool, string) {
				return a.Status == 503 && string(a.Body) == "still busy", fmt.Sprintf("answer %s; %s", a, seen(records))
			}), retry(1, 0, meshbench.RetryOn5xx)),
		under(exchange("retry.post", "Is POST left alone, whose repetition may do harm?", "it is not sent again", rfc(9110, "9.2.2"),
			"POST with a body, retry on 5xx; answered with 503, then 200", Request{Method: "POST", Body: "pay 5"}, failOnce, tries(1, 503)), retry(2, 0, meshbench.RetryOn5xx)),
		under(exchange("retry.body", "Is the body sent again, whole?", "the second attempt has the same body", gepRetry,
			"PUT with a body, retry on 5xx; answered with 503, then 200", Request{Method: "PUT", Body: "all of the body"}, failOnce,
			func(a Answer, records []origin.Record) (bool, string) {
				ok := len(records) == 2 && string(records[1].Message.Body) == "all of the body"
				var bodies []string
				for _, r := range records {
					bodies = append(bodies, string(r.Message.Body))
				}
				return ok && a.Status == 200, fmt.Sprintf("answer %s; bodies that arrived: %s", a, quoted(bodies))
			}), retry(2, 0, meshbench.RetryOn5xx)),
		under(exchange("retry.not_on_4xx", "Is a request left alone that was answered with 404?", "it is not sent again", gepRetry,
			"GET, retry on 5xx; answered with 404, then 200", Request{}, []origin.Answer{canned(404, "no"), canned(200, "fine")}, tries(1, 404)), retry(2, 0, meshbench.RetryOn5xx)),
		under(exchange("retry.only_named", "Is 500 left alone when only 502, 503 and 504 are named?", "it is not sent again", gepRetry,
			"GET, retry on gateway errors; answered with 500, then 200", Request{}, []origin.Answer{canned(500, "broken"), canned(200, "fine")}, tries(1, 500)), retry(2, 0, meshbench.RetryOnGatewayError)),
		under(exchange("retry.reset", "Is a request sent again whose connection ended without an answer?", "200, after two attempts", gepRetry,
			"GET, retry on reset; reset, then 200", Request{}, []origin.Answer{{Then: origin.Reset}, canned(200, "fine")}, tries(2, 200)), retry(2, 0, meshbench.RetryOnReset)),
		under(exchange("retry.per_try_timeout", "Does an attempt that takes too long make room for the next?", "200, after two attempts", gepTimeout,
			"GET, retry on 5xx, 400 ms per try; the first hangs, then 200", Request{}, []origin.Answer{hang, canned(200, "fine")},
			func(a Answer, records []origin.Record) (bool, string) {
				return len(records) == 2 && string(a.Body) == "fine", fmt.Sprintf("answer %s; %s", a, seen(records))
			}), retry(2, 400, meshbench.RetryOn5xx, meshbench.RetryOnReset)),
		under(exchange("retry.within_timeout", "Does a timeout bound all attempts together?", "504 before the attempts are used up", gepTimeout,
			"GET, timeout 700 ms, 10 retries of 400 ms; always hangs", Request{}, []origin.Answer{hang},
			func(a Answer, records []origin.Record) (bool, string) {
				return a.Status == 504 && len(records) <= 3, fmt.Sprintf("answer %s; %s", a, seen(records))
			}), retry(10, 400, meshbench.RetryOn5xx), meshbench.Policy{To: Echo, Timeout: &meshbench.TimeoutPolicy{Request: ms(700)}}),
		withProxy(exchange("retry.none_by_default", "Is a 503 passed on when no policy says anything?", "the application's 503, after one attempt",
			rfc(9110, "9.2.2"), "GET without policies; answered with 503, then 200", Request{}, failOnce, tries(1, 503))),
		withProxy(exchange("retry.none_on_reset_by_default", "Is a request left alone whose connection was reset, when no policy says anything?", "an error, after one attempt",
			rfc(9110, "9.2.2"), "POST without policies; reset, then 200", Request{Method: "POST", Body: "pay 5"}, []origin.Answer{{Then: origin.Reset}, canned(200, "fine")},
			func(a Answer, records []origin.Record) (bool, string) {
				return len(records) == 1 && a.Status != 200, fmt.Sprintf("answer %s; %s", a, seen(records))
			})),
	}
}

func fault(f meshbench.FaultPolicy) meshbench.Policy { return meshbench.Policy{To: Echo, Fault: &f} }

// share is a probe in which about a share of n requests must be as told.
func share(name, question, expected, reference string, n int, p float64, r Request, tell func(statuses map[int]int, records []origin.Record) int) Probe {
	low, high := interval(n, p)
	return custom(name, question, fmt.Sprintf("%s: %d to %d of %d (binomial, 99.9 %%)", expected, low, high, n), reference,
		func(ctx context.Context, b *Bed) (Finding, error) {
			r := r
			r.Key = b.Key()
			statuses := b.Many(ctx, n, r)
			records, err := b.Records(ctx, r.Key)
			if err != nil {
				return Finding{}, err
			}
			k := tell(statuses, records)
			return decide(k >= low && k <= high, "sent: %d requests; %d of them, answers %s; %s", n, k, tally(statuses), seen(records))
		})
}

// interval returns the numbers between which a binomial variable of n and p
// lies with a probability of 99.9 % (equal tails).
func interval(n int, p float64) (low, high int) {
	const tail = 0.0005
	logs := func(k int) float64 {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(k + 1))
		c, _ := math.Lgamma(float64(n - k + 1))
		return a - b - c + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p)
	}
	sum := 0.0
	for low = 0; low < n; low++ {
		if sum += math.Exp(logs(low)); sum > tail {
			break
		}
	}
	sum = 0
	for high = n; high > 0; high-- {
		if sum += math.Exp(logs(high)); sum > tail {
			break
		}
	}
	return low, high
}

func faultProbes() []Probe {
	return []Probe{
		under(exchange("fault.abort", "Which code does an injected abort give?", "the asked code, and the application is not reached", envoyFault,
			"GET, abort 418", Request{}, nil, func(a Answer, records []origin.Record) (bool, string) {
				return a.Status == 418 && len(records) == 0, fmt.Sprintf("answer %s; %s", a, seen(records))
			}), fault(meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}})),
		under(share("fault.abort_percent", "Is the asked share of requests aborted?", "30 %", envoyFault, 200, 0.3, Request{},
			func(statuses map[int]int, _ []origin.Record) int { return statuses[503] }),
			fault(meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 503, Percent: 30}})),
		under(exchange("fault.delay", "Is a request held back by an injected delay?", "the answer comes whole, not before the delay", envoyFault,
			"GET, delay 400 ms", Request{}, nil, answered(func(a Answer) (bool, string) {
				return a.Status == 200 && a.Elapsed >= 390*time.Millisecond, fmt.Sprintf("answer %s after %d ms", a, a.Elapsed.Milliseconds())
			})), fault(meshbench.FaultPolicy{Delay: &meshbench.Delay{Duration: ms(400), Percent: 100}})),
		under(custom("fault.match", "Are only those requests aborted that fit the match?", "418 with the field, 200 without", envoyFault,
			func(ctx context.Context, b *Bed) (Finding, error) {
				with, _, err := b.Ask(ctx, Request{Fields: field("X-Fault", "yes")})
				if err != nil {
					return Finding{}, err
				}
				without, _, err := b.Ask(ctx, Request{})
				if err != nil {
					return Finding{}, err
				}
				return decide(with.Status == 418 && without.Status == 200, "sent: with X-Fault: yes: %s; without: %s", with, without)
			}), meshbench.Policy{To: Echo, Match: &meshbench.Match{Headers: map[string]string{"x-fault": "yes"}},
			Fault: &meshbench.FaultPolicy{Abort: &meshbench.Abort{Status: 418, Percent: 100}}}),
	}
}

func split(echo, other int) meshbench.Policy {
	return meshbench.Policy{To: Echo, Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: Echo, Weight: echo}, {Service: Other, Weight: other}}}}
}

func splitProbes() []Probe {
	toOther := func(_ map[int]int, records []origin.Record) int { return count(records, Other) }
	return []Probe{
		under(share("split.weights", "Does a split converge to its weights?", "20 % to "+Other, gatewaySplit, 400, 0.2, Request{}, toOther), split(80, 20)),
		under(custom("split.zero_weight", "Does a backend of weight 0 get nothing?", "all 60 at "+Echo, gatewaySplit,
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				statuses := b.Many(ctx, 60, Request{Key: key})
				records, err := b.Records(ctx, key)
				if err != nil {
					return Finding{}, err
				}
				return decide(count(records, Echo) == 60 && count(records, Other) == 0, "sent: 60 GETs with weights 1 and 0; seen: %s; %s", tally(statuses), seen(records))
			}), split(1, 0)),
		under(custom("split.by_request", "Is every request of one connection split by itself?", "both backends are reached over one connection", gatewaySplit,
			func(ctx context.Context, b *Bed) (Finding, error) {
				const n = 40
				c, err := b.Dial(ctx)
				if err != nil {
					return Finding{}, err
				}
				defer c.Close()
				key := b.Key()
				for i := range n {
					if a := c.Do(Request{Key: key}.text(b.host())); a.Status != 200 || a.Err != nil {
						return decide(false, "sent: GET %d of %d over one connection; seen: %s", i+1, n, a)
					}
				}
				records, err := b.Records(ctx, key)
				if err != nil {
					return Finding{}, err
				}
				return decide(count(records, Echo) > 0 && count(records, Other) > 0, "sent: %d GETs over one connection, weights 1 and 1; %s", n, seen(records))
			}), split(1, 1)),
	}
}

func mirrorProbes() []Probe {
	mirror := meshbench.Policy{To: Echo, Mirror: &meshbench.MirrorPolicy{Service: Other, Percent: 100}}
	// copies waits for the copy, which comes when it likes.
	copies := func(ctx context.Context, b *Bed, r Request) (Answer, []origin.Record, []origin.Record, error) {
		a := b.Do(ctx, r)
		var to []origin.Record
		all, err := b.Settled(ctx, r.Key, func(records []origin.Record) bool {
			return count(records, Other) > 0 && records[len(records)-1].BodySHA256 != ""
		})
		for _, record := range all {
			if record.Service == Other {
				to = append(to, record)
			}
		}
		return a, all, to, err
	}
	return []Probe{
		under(custom("mirror.copy", "Does a copy arrive at the mirror, and the request itself at its service?", "one each, answered by "+Echo, gatewayMirror,
			func(ctx context.Context, b *Bed) (Finding, error) {
				a, all, to, err := copies(ctx, b, Request{Key: b.Key()})
				if err != nil {
					return Finding{}, err
				}
				return decide(len(to) == 1 && count(all, Echo) == 1 && string(a.Body) == Echo, "sent: GET; seen: %s; %s", a, seen(all))
			}), mirror),
		under(custom("mirror.answer_unaffected", "Is the answer left alone when the mirror fails and hangs?", "200 from "+Echo+", before the mirror answers", gatewayMirror,
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				slow := canned(500, "broken")
				slow.DelayMS = 4000
				if err := b.Script(ctx, key, []origin.Answer{slow}, Other); err != nil {
					return Finding{}, err
				}
				a, all, to, err := copies(ctx, b, Request{Key: key})
				if err != nil {
					return Finding{}, err
				}
				ok := a.Status == 200 && string(a.Body) == Echo && a.Elapsed < 3500*time.Millisecond && len(to) == 1
				return decide(ok, "sent: GET, the mirror answers 500 after 4 s; seen: %s; %s", a, seen(all))
			}), mirror),
		under(custom("mirror.body", "Does the copy have the request's body?", "the same body", gatewayMirror,
			func(ctx context.Context, b *Bed) (Finding, error) {
				a, all, to, err := copies(ctx, b, Request{Key: b.Key(), Method: "POST", Body: "the whole body"})
				if err != nil {
					return Finding{}, err
				}
				if len(to) != 1 {
					return decide(false, "sent: POST; seen: %s; %s", a, seen(all))
				}
				return decide(string(to[0].Message.Body) == "the whole body", "sent: POST with \"the whole body\"; the copy has %q", to[0].Message.Body)
			}), mirror),
		under(custom("mirror.host", "Which Host does the copy have?", "that of the request", rfc(9110, "7.2"),
			func(ctx context.Context, b *Bed) (Finding, error) {
				a, all, to, err := copies(ctx, b, Request{Key: b.Key(), Host: ""})
				if err != nil {
					return Finding{}, err
				}
				if len(to) != 1 {
					return decide(false, "sent: GET; seen: %s; %s", a, seen(all))
				}
				got := strings.ReplaceAll(to[0].Message.Get("Host"), b.host(), "HOST")
				return decide(got == "HOST", "sent: GET with Host: HOST; the copy has Host: %s", got)
			}), mirror),
	}
}

// matched is a split to the other service for the requests that fit.
func matched(name, question, expected, reference string, m meshbench.Match, fits, not Request, told string) Probe {
	return under(custom(name, question, expected, reference, func(ctx context.Context, b *Bed) (Finding, error) {
		yes, _, err := b.Ask(ctx, fits)
		if err != nil {
			return Finding{}, err
		}
		no, _, err := b.Ask(ctx, not)
		if err != nil {
			return Finding{}, err
		}
		return decide(string(yes.Body) == Other && string(no.Body) == Echo, "sent: "+told, yes, no)
	}), meshbench.Policy{To: Echo, Match: &m, Split: &meshbench.SplitPolicy{Backends: []meshbench.WeightedBackend{{Service: Other, Weight: 1}}}})
}

func matchProbes() []Probe {
	return []Probe{
		matched("match.header", "Does a route match by the value of a field?", Other+" with the exact value, "+Echo+" with another", gatewayMatch,
			meshbench.Match{Headers: map[string]string{"x-version": "2"}},
			Request{Fields: field("X-Version", "2")}, Request{Fields: field("X-Version", "22")}, "X-Version: 2: %s; X-Version: 22: %s"),
		matched("match.path", "Does a route match by the beginning of the path?", Other+" below /v2, "+Echo+" elsewhere", gatewayPath,
			meshbench.Match{PathPrefix: "/v2"},
			Request{Target: "/v2/things"}, Request{Target: "/v1/things"}, "GET /v2/things: %s; GET /v1/things: %s"),
		matched("match.path_element", "Does a prefix of a path end at an element?", Other+" for /v2, "+Echo+" for /v22", gatewayPath,
			meshbench.Match{PathPrefix: "/v2"},
			Request{Target: "/v2"}, Request{Target: "/v22"}, "GET /v2: %s; GET /v22: %s"),
		matched("match.method", "Does a route match by method?", Other+" for PUT, "+Echo+" for GET", gatewayMatch,
			meshbench.Match{Method: "PUT"},
			Request{Method: "PUT"}, Request{}, "PUT: %s; GET: %s"),
	}
}

func headersProbes() []Probe {
	change := func(request, response *meshbench.HeaderChange) meshbench.Policy {
		return meshbench.Policy{To: Echo, Headers: &meshbench.HeadersPolicy{Request: request, Response: response}}
	}
	values := func(name string, want ...string) judge {
		return arrived(func(m wire.Message, _ origin.Record) (bool, string) {
			v := wire.Values(m.Fields, name)
			whole := strings.ReplaceAll(strings.Join(v, ","), " ", "")
			return whole == strings.Join(want, ",") && (len(want) > 0) == (len(v) > 0), "arrived as " + quoted(v)
		})
	}
	return []Probe{
		under(exchange("headers.set", "Does setting a field replace what the client sent?", "the set value alone", gatewayHeader,
			"X-Set: old, set to new", Request{Fields: field("X-Set", "old")}, nil, values("X-Set", "new")),
			change(&meshbench.HeaderChange{Set: map[string]string{"x-set": "new"}}, nil)),
		under(exchange("headers.add", "Does adding a field keep what the client sent?", "both values, the client's first", gatewayHeader,
			"X-Add: one, two added", Request{Fields: field("X-Add", "one")}, nil, values("X-Add", "one", "two")),
			change(&meshbench.HeaderChange{Add: map[string]string{"x-add": "two"}}, nil)),
		under(exchange("headers.remove", "Is a field removed that the client sent?", "it does not arrive", gatewayHeader,
			"X-Remove: 1, to be removed", Request{Fields: field("X-Remove", "1")}, nil, values("X-Remove")),
			change(&meshbench.HeaderChange{Remove: []string{"x-remove"}}, nil)),
		under(exchange("headers.answer", "Is a field of the answer set?", "it comes back with the set value", gatewayHeader,
			"GET, X-Answer of the answer set to new", Request{}, []origin.Answer{rawAnswer("HTTP/1.1 200 OK\r\nX-Answer: old\r\nContent-Length: 0\r\n\r\n")},
			answered(func(a Answer) (bool, string) {
				v := wire.Values(a.Fields, "X-Answer")
				return len(v) == 1 && v[0] == "new", "came back as " + quoted(v)
			})), change(nil, &meshbench.HeaderChange{Set: map[string]string{"x-answer": "new"}})),
	}
}

func limitProbes() []Probe {
	const hold = 1500
	limit := func(requests, per int) meshbench.Policy {
		return meshbench.Policy{To: Echo, RateLimit: &meshbench.RateLimitPolicy{Requests: requests, Per: ms(per)}}
	}
	// atOnce sends n requests at the same time and returns their answers.
	atOnce := func(ctx context.Context, b *Bed, n int, r Request) []Answer {
		answers := make(chan Answer, n)
		for range n {
			go func() { answers <- b.Do(ctx, r) }()
		}
		out := make([]Answer, 0, n)
		for range n {
			out = append(out, <-answers)
		}
		return out
	}
	breaker := meshbench.Policy{To: Echo, CircuitBreaker: &meshbench.CircuitBreaker{MaxConnections: 1, MaxPendingRequests: 1, MaxRequests: 1}}
	outlier := meshbench.Policy{To: Echo, OutlierDetection: &meshbench.OutlierDetection{
		ConsecutiveErrors: 3, Interval: ms(500), BaseEjection: ms(4000), MaxEjectionPercent: 100}}
	// eject sends requests while one instance fails, until it has had its
	// errors, and then counts where further ones arrive.
	eject := func(ctx context.Context, b *Bed) (sick string, records []origin.Record, err error) {
		sick = processName(Echo, 1)
		key := b.Key()
		if err := b.Script(ctx, key, []origin.Answer{canned(500, "sick")}, sick); err != nil {
			return "", nil, err
		}
		b.Many(ctx, 30, Request{Key: key})
		if err := sleep(ctx, 700*time.Millisecond); err != nil {
			return "", nil, err
		}
		after := b.Key()
		b.Many(ctx, 30, Request{Key: after})
		records, err = b.Records(ctx, after)
		return sick, records, err
	}
	at := func(records []origin.Record, process string) int {
		n := 0
		for _, r := range records {
			if processName(r.Service, r.Instance) == process {
				n++
			}
		}
		return n
	}
	paired := func(p Probe) Probe {
		p.Ground = Pair
		return p
	}
	return []Probe{
		under(custom("rate_limit.code", "Do as many requests pass as the limit says, and what do the others get?", "5 x 200 and 15 x 429", rfc(6585, "4"),
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				statuses := b.Many(ctx, 20, Request{Key: key})
				records, err := b.Records(ctx, key)
				if err != nil {
					return Finding{}, err
				}
				return decide(statuses[200] == 5 && statuses[429] == 15 && len(records) == 5, "sent: 20 GETs, limit 5 in 60 s; seen: %s; %s", tally(statuses), seen(records))
			}), limit(5, 60000)),
		under(custom("rate_limit.refills", "Do requests pass again when the time is over?", "200 again", rfc(6585, "4"),
			func(ctx context.Context, b *Bed) (Finding, error) {
				statuses := b.Many(ctx, 12, Request{})
				if err := sleep(ctx, 2500*time.Millisecond); err != nil {
					return Finding{}, err
				}
				a := b.Do(ctx, Request{})
				return decide(statuses[429] > 0 && statuses[200] >= 3 && a.Status == 200, "sent: 12 GETs, limit 3 in 2 s: %s; one more 2.5 s later: %s", tally(statuses), a)
			}), limit(3, 2000)),
		under(custom("circuit.full", "What does a request get when the service is full?", "503 for some, and the application never has two at once", envoyCircuit,
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				if err := b.Script(ctx, key, []origin.Answer{slowAnswer(hold)}); err != nil {
					return Finding{}, err
				}
				statuses := map[int]int{}
				for _, a := range atOnce(ctx, b, 10, Request{Key: key}) {
					statuses[a.Status]++
				}
				records, err := b.Records(ctx, key)
				if err != nil {
					return Finding{}, err
				}
				most := overlap(records, hold*time.Millisecond)
				return decide(statuses[503] > 0 && statuses[200] > 0 && most == 1, "sent: 10 GETs at once, one connection and one request allowed; seen: %s; the application had %d at once", tally(statuses), most)
			}), breaker),
		under(custom("circuit.recovers", "Do requests pass again when the service is no longer full?", "200", envoyCircuit,
			func(ctx context.Context, b *Bed) (Finding, error) {
				key := b.Key()
				if err := b.Script(ctx, key, []origin.Answer{slowAnswer(500)}); err != nil {
					return Finding{}, err
				}
				refusals := 0
				for _, a := range atOnce(ctx, b, 10, Request{Key: key}) {
					if a.Status != 200 {
						refusals++
					}
				}
				a := b.Do(ctx, Request{})
				return decide(refusals > 0 && a.Status == 200, "sent: 10 GETs at once, %d refused; then one: %s", refusals, a)
			}), breaker),
		paired(under(custom("outlier.ejects", "Is an instance left out that fails again and again?", "it gets none of 30 further requests", envoyOutlier,
			func(ctx context.Context, b *Bed) (Finding, error) {
				sick, records, err := eject(ctx, b)
				if err != nil {
					return Finding{}, err
				}
				return decide(len(records) > 0 && at(records, sick) == 0, "sent: 30 GETs while %s answers 500 (3 errors eject), then 30 more: %s", sick, seen(records))
			}), outlier)),
		paired(under(custom("outlier.returns", "Does an ejected instance come back when its time is over?", "it gets requests again", envoyOutlier,
			func(ctx context.Context, b *Bed) (Finding, error) {
				sick, records, err := eject(ctx, b)
				if err != nil {
					return Finding{}, err
				}
				out := at(records, sick)
				// 4 s out, an interval more until somebody looks, and some for a
				// machine that is busy.
				var back []origin.Record
				for range 10 {
					if err := sleep(ctx, time.Second); err != nil {
						return Finding{}, err
					}
					key := b.Key()
					b.Many(ctx, 20, Request{Key: key})
					if back, err = b.Records(ctx, key); err != nil {
						return Finding{}, err
					}
					if at(back, sick) > 0 && out == 0 {
						break
					}
				}
				return decide(out == 0 && at(back, sick) > 0, "%s got %d of 30 requests while ejected (4 s), and %d of 20 later", sick, out, at(back, sick))
			}), outlier)),
	}
}

// overlap is how many requests were with the application at the same time,
// at most, when each is held for a while. A tenth is taken off: the next may
// come while the last byte of an answer is on its way.
func overlap(records []origin.Record, hold time.Duration) int {
	most := 0
	for _, r := range records {
		n := 0
		for _, other := range records {
			if other.At <= r.At && r.At < other.At+int64(hold)*9/10 {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}
