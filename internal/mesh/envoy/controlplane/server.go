package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/meshbench/meshbench"
)

const (
	maxConfigBytes = 4 << 20
	maxWait        = 30 * time.Second // of one GET /acks
)

// Options is where a control plane listens.
type Options struct {
	Listen string       // host:port of ADS (gRPC), for the proxies
	Admin  string       // host:port of the management protocol (HTTP), for the driver
	Logger *slog.Logger // nil: nothing is logged
}

// Serve runs a control plane until ctx ends, and then returns nil. It is
// meant for loopback addresses: neither port asks who is calling, and keys of
// throw-away certificates pass over both.
//
// Management protocol:
//
//	PUT /config                     a Config; answers {"version": "..."}, at once
//	POST /rollback                  makes the last Config that all accepted the one
//	                                to have; answers as PUT, "" where there is none
//	GET /acks?version=V&wait=10s    an Account, when V is decided or the time is over
//	GET /ready                      200
//
// An error is answered with a meshbench.Error as JSON.
func Serve(ctx context.Context, o Options) error {
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	var listening net.ListenConfig
	xds, err := listening.Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane cannot listen for proxies: %w", err)
	}
	defer xds.Close()
	admin, err := listening.Listen(ctx, "tcp", o.Admin)
	if err != nil {
		return meshbench.Errorf(meshbench.Unavailable, "the control plane cannot listen for its driver: %w", err)
	}
	defer admin.Close()

	s := newServer(logger)
	group, ctx := errgroup.WithContext(ctx)
	ads := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(ads, &stream{
		sotw: sotw.NewServer(ctx, holder{s.cache, s.ledger}, s.ledger.callbacks(), sotw.WithOrderedADS()),
	})
	management := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	group.Go(func() error { return ads.Serve(xds) })
	group.Go(func() error {
		if err := management.Serve(admin); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ads.Stop() // streams have no end of their own to wait for
		return management.Close()
	})
	logger.Info("control plane is up", "ads", xds.Addr().String(), "management", admin.Addr().String())
	return group.Wait()
}

// server is the state behind both ports.
type server struct {
	logger *slog.Logger
	cache  cache.SnapshotCache
	ledger *ledger
	put    sync.Mutex // one change at a time; it guards what follows

	current, accepted *Config // that all should have; the last one that all had
}

func newServer(logger *slog.Logger) *server {
	return &server{logger: logger, cache: cache.NewSnapshotCache(true, cache.IDHash{}, nil), ledger: newLedger()}
}

// set makes c what all proxies should have and returns its version. The
// version that they already should have is not sent again.
func (s *server) set(ctx context.Context, c Config) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	version, err := c.Version()
	if err != nil {
		return "", err
	}
	s.put.Lock()
	defer s.put.Unlock()
	return version, s.replace(ctx, c, version)
}

// rollback makes the last configuration that all proxies had the one to have
// again, and returns its version.
func (s *server) rollback(ctx context.Context) (string, error) {
	s.put.Lock()
	defer s.put.Unlock()
	if s.accepted == nil {
		return "", nil
	}
	version, err := s.accepted.Version()
	if err != nil {
		return "", err
	}
	return version, s.replace(ctx, *s.accepted, version)
}

// replace sends what is new to the proxies; s.put is held.
func (s *server) replace(ctx context.Context, c Config, version string) error {
	now, _ := s.ledger.account("")
	if now.Version == version {
		return nil
	}
	if now.Outcome == Accepted {
		s.accepted = s.current
	}
	snapshots := map[string]*cache.Snapshot{}
	wanted := map[string][]string{}
	for _, n := range c.Nodes {
		made, err := snapshot(n, version)
		if err != nil {
			return err
		}
		snapshots[n.ID] = made
		wanted[n.ID] = nil
		for url := range typeWords {
			if len(made.GetResources(url)) > 0 {
				wanted[n.ID] = append(wanted[n.ID], url)
			}
		}
	}
	s.ledger.want(version, wanted)
	for id, made := range snapshots {
		if err := s.cache.SetSnapshot(ctx, id, made); err != nil {
			return err
		}
	}
	for _, id := range s.cache.GetStatusKeys() {
		if snapshots[id] == nil {
			s.cache.ClearSnapshot(id)
		}
	}
	s.logger.Info("configuration", "version", version, "proxies", len(c.Nodes))
	s.current = &c
	return nil
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ready\n") })
	mux.HandleFunc("PUT /config", func(w http.ResponseWriter, r *http.Request) {
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxConfigBytes))
		d.DisallowUnknownFields()
		var c Config
		if err := d.Decode(&c); err != nil {
			refuse(w, meshbench.Errorf(meshbench.Invalid, "the configuration cannot be read: %w", err))
			return
		}
		// A change is made whole even if the driver goes away meanwhile.
		version, err := s.set(context.WithoutCancel(r.Context()), c)
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, versionAnswer{version})
	})
	mux.HandleFunc("POST /rollback", func(w http.ResponseWriter, r *http.Request) {
		version, err := s.rollback(context.WithoutCancel(r.Context()))
		if err != nil {
			refuse(w, err)
			return
		}
		answer(w, http.StatusOK, versionAnswer{version})
	})
	mux.HandleFunc("GET /acks", func(w http.ResponseWriter, r *http.Request) {
		var wait time.Duration
		if text := r.FormValue("wait"); text != "" {
			var err error
			if wait, err = time.ParseDuration(text); err != nil || wait < 0 {
				refuse(w, meshbench.Errorf(meshbench.Invalid, "wait %q is not a duration", text))
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), min(wait, maxWait))
		defer cancel()
		for {
			account, changed := s.ledger.account(r.FormValue("version"))
			if account.Outcome != Pending || ctx.Err() != nil {
				answer(w, http.StatusOK, account)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	})
	return mux
}

type versionAnswer struct {
	Version string `json:"version"`
}

func refuse(w http.ResponseWriter, err error) {
	e := meshbench.AsError(err)
	status := http.StatusInternalServerError
	if e.Code == meshbench.Invalid {
		status = http.StatusBadRequest
	}
	answer(w, status, e)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The one who asked is gone if this fails: nobody is left to be told.
	_ = json.NewEncoder(w).Encode(body)
}

// stream is the gRPC service of ADS, state of the world only: our bootstraps
// ask for no other variant.
type stream struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	sotw sotw.Server
}

// StreamAggregatedResources serves one proxy.
func (s *stream) StreamAggregatedResources(g discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return s.sotw.StreamHandler(g, resource.AnyType)
}

// holder is the cache, but does not send to a proxy again what it has just
// refused: the cache alone answers every refusal with the same response, as
// fast as the two can talk.
type holder struct {
	cache.SnapshotCache
	ledger *ledger
}

// CreateWatch waits for a version other than a refused one.
func (h holder) CreateWatch(r *cache.Request, s cache.Subscription, out chan cache.Response) (func(), error) {
	if r.GetErrorDetail() != nil {
		if refused := h.ledger.refused(r.GetNode().GetId(), r.GetTypeUrl()); refused != "" {
			r = proto.CloneOf(r)
			r.VersionInfo = refused
		}
	}
	return h.SnapshotCache.CreateWatch(r, s, out)
}

// callbacks makes the ledger hear what the streams say.
func (l *ledger) callbacks() sotw.Callbacks { return scribe{l} }

// scribe writes into the ledger what happens on the streams.
type scribe struct{ *ledger }

func (scribe) OnStreamOpen(context.Context, int64, string) error { return nil }

func (s scribe) OnStreamClosed(id int64, n *core.Node) { s.closed(id, n) }

func (s scribe) OnStreamRequest(id int64, r *discovery.DiscoveryRequest) error {
	s.request(id, r)
	return nil
}

func (s scribe) OnStreamResponse(_ context.Context, id int64, r *discovery.DiscoveryRequest, sent *discovery.DiscoveryResponse) {
	s.response(id, r, sent)
}
