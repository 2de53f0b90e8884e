package runtimes

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDownloadProgress serves a wheel in two halves from an index of its own:
// the first half is seen as progress before the second one is sent.
func TestDownloadProgress(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	// What is random cannot be packed, so the wheel is large enough to be seen.
	noise := make([]byte, 2<<20)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	b.putWheel(t, "9.9.1", script("9.9.1")+"exit\n"+hex.EncodeToString(noise)+"\n")
	data, err := os.ReadFile(filepath.Join(b.wheels, wheelName("9.9.1")))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/simple/"+bedPackage+"/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body><a href=\"/files/%[1]s\">%[1]s</a></body></html>", wheelName("9.9.1"))
	})
	mux.HandleFunc("/files/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		half := len(data) / 2
		_, _ = w.Write(data[:half])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-seen:
		case <-r.Context().Done():
		case <-time.After(timeout):
		}
		_, _ = w.Write(data[half:])
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	b.set("PIP_NO_INDEX", "0")
	b.set("PIP_FIND_LINKS", "")
	b.set("PIP_INDEX_URL", server.URL+"/simple")
	b.set("NO_PROXY", "127.0.0.1")
	b.set("no_proxy", "127.0.0.1")

	half := false
	total := int64(len(data))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	r, err := b.cache().Get(ctx, "proxy", "9.9", func(p Progress) {
		if p.Phase == Downloading && p.TotalBytes != total {
			t.Errorf("the total is %d bytes, want %d", p.TotalBytes, total)
		}
		if p.Phase == Downloading && p.DoneBytes > total/4 && p.DoneBytes < total && !half {
			half = true
			close(seen)
		}
	})
	if err != nil || r.Version != "9.9.1" {
		t.Fatalf("got %+v, %v", r, err)
	}
	if !half {
		t.Error("the half that had come was not seen")
	}
}

// TestPipConfiguration holds that a pip that would refuse for reasons that do
// not concern a download does not.
func TestPipConfiguration(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	config := filepath.Join(b.wheels, "pip.conf")
	if err := os.WriteFile(config, []byte("[global]\nrequire-virtualenv = true\nrequire-hashes = true\nno-binary = :all:\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.set("PIP_CONFIG_FILE", config)
	b.mustGet(t, b.cache(), "", "9.9.1")
}

// TestFindPip holds that a python3 without pip does not hide one that has it.
func TestFindPip(t *testing.T) {
	t.Parallel()
	b := newBed(t)
	b.put(t, "python3", "#!/bin/sh\necho 'No module named pip'\nexit 1\n")
	want := b.put(t, "pip3", "#!/bin/sh\necho 'pip 23.0.1 from /usr/lib (python 3.11)'\n")
	b.put(t, "pip", "#!/bin/sh\necho 'pip 23.0.1 from /usr/lib (python 2.7)'\n")
	b.set("PATH", b.bin)
	p, err := findPip(context.Background(), Host{Environ: b.environ})
	if err != nil || p.program != want || len(p.args) > 0 {
		t.Errorf("found %+v, %v", p, err)
	}
}

func TestTail(t *testing.T) {
	var out tail
	for range 1000 {
		fmt.Fprintf(&out, "%s\n", strings.Repeat("x", 99))
	}
	fmt.Fprint(&out, "one\n\n two \nthree")
	if len(out.kept) > maxOutput {
		t.Errorf("%d bytes are kept", len(out.kept))
	}
	if got := lastLines(string(out.kept), 3); got != "one | two | three" {
		t.Errorf("the last lines are %q", got)
	}
	if got := lastLines("", 3); got != "" {
		t.Errorf("the last lines of nothing are %q", got)
	}
}
