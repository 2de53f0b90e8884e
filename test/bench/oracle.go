package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The oracle is a server that is one thread which never sleeps: it polls its
// connections, holds each answer for a known time, one after the other in the
// order of their arrival, and logs how long each request really was with it.
// A client that is right sees what the log says, and the way there and back.

// holdTime is the service time of the plain comparison; it is well below the
// distance of the arrivals, so that no request waits for another.
const (
	holdTime   = 200 * time.Microsecond
	oracleRate = 1000
)

var oracleAnswer = []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

// waiting is a request that the oracle has.
type waiting struct {
	fd      int
	arrived time.Time
	hold    time.Duration
}

// serveOracle serves by a law (see parseLaw) until its standard input closes,
// then writes its log's quantiles as JSON. Its first line is its address.
func serveOracle(words []string) error {
	law, err := parseLaw(words)
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	defer runtime.KeepAlive(file) // its finalizer would close the descriptor that is polled
	listener := int(file.Fd())
	if err := unix.SetNonblock(listener, true); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	closed := make(chan struct{})
	go func() {
		buffer := make([]byte, 1)
		os.Stdin.Read(buffer)
		close(closed)
	}()
	poll, err := unix.EpollCreate1(0)
	if err != nil {
		return err
	}
	defer unix.Close(poll)
	var log []float64
	var queue []waiting
	var begun, awake time.Time // of the first in the queue; of the oracle, after a stall
	random := rand.New(rand.NewPCG(1, 2))
	buffer := make([]byte, 4096)
	var events [64]unix.EpollEvent
	for round := 0; ; round++ {
		if round%64 == 0 {
			select {
			case <-closed:
				slices.Sort(log)
				return json.NewEncoder(os.Stdout).Encode(quantiles(log))
			default:
			}
			if fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK); err == nil {
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
				if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
					return err
				}
			}
		}
		// Arrivals are taken while one is served: their order is the queue's.
		// To ask every connection would take longer than an answer may be late.
		ready, err := unix.EpollWait(poll, events[:], 0)
		if err != nil && err != unix.EINTR {
			return err
		}
		for i := range max(ready, 0) {
			fd := int(events[i].Fd)
			n, err := unix.Read(fd, buffer)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if n <= 0 {
				unix.Close(fd)
				continue
			}
			queue = append(queue, waiting{fd: fd, arrived: time.Now(), hold: law.next(random)})
		}
		now := time.Now()
		if law.period > 0 {
			if awake.IsZero() {
				awake = now
			}
			if now.Sub(awake) >= law.period-law.stall {
				time.Sleep(law.stall) // frozen: it neither reads nor answers
				awake = time.Now()
				continue
			}
		}
		if len(queue) == 0 {
			continue
		}
		if begun.IsZero() {
			begun = now
		}
		if now.Sub(begun) >= queue[0].hold {
			unix.Write(queue[0].fd, oracleAnswer)
			log = append(log, float64(time.Since(queue[0].arrived).Nanoseconds())/1000)
			queue = queue[1:]
			begun = time.Time{}
		}
	}
}

func quantiles(sorted []float64) latency {
	if len(sorted) == 0 {
		return latency{}
	}
	at := func(p float64) float64 { return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))] }
	return latency{P50: at(0.5), P90: at(0.9), P99: at(0.99), P999: at(0.999), Max: sorted[len(sorted)-1]}
}

// withOracle runs do against a fresh oracle and returns the oracle's own log.
func (b *bench) withOracle(law []string, do func(address string) error) (latency, error) {
	self, err := os.Executable()
	if err != nil {
		return latency{}, err
	}
	cmd := exec.CommandContext(b.ctx, "taskset", append([]string{"-c", serverCPU, self, "oracle-server"}, law...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return latency{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return latency{}, err
	}
	if err := cmd.Start(); err != nil {
		return latency{}, err
	}
	defer cmd.Wait()
	defer in.Close()
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		return latency{}, fmt.Errorf("the oracle did not start")
	}
	if err := do(lines.Text()); err != nil {
		return latency{}, err
	}
	in.Close()
	var log latency
	if !lines.Scan() {
		return log, fmt.Errorf("the oracle kept its log to itself")
	}
	return log, json.Unmarshal(lines.Bytes(), &log)
}

// bareClient is the simplest client that there can be: one connection, one
// thread that never sleeps, constant arrivals.
func bareClient(address string, n int) (latency, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return latency{}, err
	}
	cpu, _ := strconv.Atoi(generatorCPU)
	mine.Set(cpu)
	if err := unix.SchedSetaffinity(0, &mine); err != nil {
		return latency{}, err
	}
	defer unix.SchedSetaffinity(0, &all)
	c, err := net.Dial("tcp", address)
	if err != nil {
		return latency{}, err
	}
	defer c.Close()
	file, err := c.(*net.TCPConn).File()
	if err != nil {
		return latency{}, err
	}
	defer file.Close()
	fd := int(file.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return latency{}, err
	}
	request := []byte("GET / HTTP/1.1\r\nHost: " + address + "\r\n\r\n")
	buffer := make([]byte, 4096)
	seen := make([]float64, 0, n)
	begin := time.Now().Add(10 * time.Millisecond)
	for i := range n {
		intended := begin.Add(time.Duration(i) * time.Second / oracleRate)
		for time.Now().Before(intended) {
		}
		if _, err := unix.Write(fd, request); err != nil {
			return latency{}, err
		}
		for got := 0; got < len(oracleAnswer); {
			k, err := unix.Read(fd, buffer)
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if k <= 0 {
				return latency{}, fmt.Errorf("the oracle closed: %v", err)
			}
			got += k
			if got == len(oracleAnswer) && !bytes.HasSuffix(buffer[:k], oracleAnswer[len(oracleAnswer)-k:]) {
				return latency{}, fmt.Errorf("the oracle answered %q", buffer[:k])
			}
		}
		seen = append(seen, float64(time.Since(intended).Nanoseconds())/1000)
	}
	slices.Sort(seen)
	return quantiles(seen), nil
}

// oracle compares what `meshbench load` says with the server's own log and
// with the bare client, in turn.
func (b *bench) oracle() error {
	var aboveLog50, aboveBare50, aboveBare99, log50, bare99, ours99 []float64
	hold := []string{"constant", holdTime.String()}
	for range b.rounds {
		var bare latency
		if _, err := b.withOracle(hold, func(address string) (err error) {
			bare, err = bareClient(address, 4*oracleRate)
			return err
		}); err != nil {
			return err
		}
		var doc loadDocument
		log, err := b.withOracle(hold, func(address string) (err error) {
			doc, err = b.load("http://"+address+"/", "--arrivals", "constant", "--rate", strconv.Itoa(oracleRate), "--duration", "4s", "--warmup", "200ms")
			return err
		})
		if err != nil {
			return err
		}
		aboveLog50 = append(aboveLog50, doc.Response.P50-log.P50)
		aboveBare50 = append(aboveBare50, doc.Response.P50-bare.P50)
		aboveBare99 = append(aboveBare99, doc.Response.P99-bare.P99)
		log50, bare99, ours99 = append(log50, log.P50), append(bare99, bare.P99), append(ours99, doc.Response.P99)
	}
	figure("oracle_log_p50", median(log50), "us")
	figure("response_p50_above_oracle_log", median(aboveLog50), "us (limit 50)")
	figure("response_p50_above_bare_client", median(aboveBare50), "us")
	figure("bare_client_p99", median(bare99), "us")
	figure("response_p99_against_oracle", median(ours99), "us")
	figure("response_p99_above_bare_client", median(aboveBare99), "us (limit 100)")
	return nil
}
