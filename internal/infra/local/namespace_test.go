//go:build linux

package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
)

// pod is what processes in namespaces do in these tests.
func pod(args []string) error {
	switch args[0] {
	case "app": // app LISTEN CONTROL
		go say(args[2], func(net.Conn) string { return "control" })
		return say(args[1], func(net.Conn) string { return "app" })
	case "fakeproxy": // fakeproxy INBOUND OUTBOUND TARGET
		// It says what it was asked for, and what they say whom it asks in
		// turn: the application as addressed, or TARGET.
		go say(args[1], func(c net.Conn) string {
			to := originalDestination(c)
			return "inbound " + to + ", " + ask(to)
		})
		return say(args[2], func(c net.Conn) string { return "outbound " + originalDestination(c) + ", " + ask(args[3]) })
	case "ask": // ask FILE ADDRESS...: writes what each says, and waits
		var lines []string
		for _, a := range args[2:] {
			lines = append(lines, ask(a))
		}
		if err := os.WriteFile(args[1]+".new", []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			return err
		}
		if err := os.Rename(args[1]+".new", args[1]); err != nil {
			return err
		}
		time.Sleep(time.Hour)
	case "unprivileged": // what one who is not root is told
		if err := unix.Setuid(65534); err != nil {
			return err
		}
		if e := meshbench.AsError(CheckNamespaces()); e != nil {
			fmt.Println(e.Code, e.Message, "//", e.Hint)
		}
		return nil
	}
	return nil
}

// say answers every connection with one line.
func say(address string, what func(net.Conn) string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			io.WriteString(c, what(c))
		}()
	}
}

func ask(address string) string {
	c, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	text, err := io.ReadAll(c)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// originalDestination is where a redirected connection was bound to.
func originalDestination(c net.Conn) string {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	out := ""
	if err := raw.Control(func(fd uintptr) {
		// A sockaddr_in fits into the structure that this call fills.
		m, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST)
		if err != nil {
			out = err.Error()
			return
		}
		a := netip.AddrFrom4([4]byte(m.Multiaddr[4:8]))
		out = netip.AddrPortFrom(a, binary.BigEndian.Uint16(m.Multiaddr[2:4])).String()
	}); err != nil {
		return err.Error()
	}
	return out
}

// pods is a Spec of two namespaces with a fake proxy each, and an application
// in the second.
func pods() meshbench.Spec {
	self := func(name string, ports []string, ready string, args ...string) meshbench.Process {
		p := meshbench.Process{Name: name, Role: meshbench.OtherRole, Runtime: meshbench.Self, Args: append([]string{"pod"}, args...), Ports: ports}
		if ready != "" {
			p.ReadyURL = "tcp://{{address `" + name + "` `" + ready + "`}}"
		}
		return p
	}
	fake := func(name string, ports ...string) meshbench.Process {
		return self(name, append([]string{"inbound", "outbound"}, ports...), "", "fakeproxy",
			"0.0.0.0:{{port `"+name+"` `inbound`}}", "0.0.0.0:{{port `"+name+"` `outbound`}}", "{{address `app` `http`}}")
	}
	return meshbench.Spec{
		Processes: []meshbench.Process{
			self("app", []string{"http", "control"}, "control", "app", "{{address `app` `http`}}", "{{address `app` `control`}}"),
			fake("app-proxy"),
			fake("client-proxy", "to-app", "direct"),
			self("asker", nil, "", "ask", "{{dir}}/said", "203.0.113.9:80", "{{address `client-proxy` `to-app`}}", "{{address `client-proxy` `outbound`}}"),
		},
		Entry: meshbench.PortRef{Process: "client-proxy", Port: "to-app"},
		Namespaces: []meshbench.Namespace{
			{Name: "app", Processes: []string{"app", "app-proxy"}, Redirect: &meshbench.Redirect{Proxy: "app-proxy", Inbound: "inbound", Outbound: "outbound"}},
			{Name: "client", Processes: []string{"client-proxy", "asker"}, Redirect: &meshbench.Redirect{
				Proxy: "client-proxy", Inbound: "inbound", Outbound: "outbound", Services: []string{"to-app"},
				Direct: []meshbench.PortRef{{Process: "client-proxy", Port: "direct"}},
			}},
		},
	}
}

// links are those of this machine that a supervisor has marked.
func links(t *testing.T, supervisor int) []string {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range all {
		if strings.HasPrefix(l.Attrs().Alias, fmt.Sprintf("meshbench %d-", supervisor)) {
			out = append(out, l.Attrs().Name)
		}
	}
	return out
}

// networksHeld counts the network namespaces that a process holds open beside
// its own.
func networksHeld(t *testing.T, pid int) int {
	t.Helper()
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, f := range files {
		if link, err := os.Readlink(filepath.Join(dir, f.Name())); err == nil && strings.HasPrefix(link, "net:[") {
			n++
		}
	}
	return n
}

// TestConnectionsAreRedirectedAsInAPod needs root. Its proxies are fake: they
// say where a connection was bound to.
func TestConnectionsAreRedirectedAsInAPod(t *testing.T) {
	ctx, i := open(t, options(t))
	d, err := i.Deploy(ctx, "pods", pods(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := func(process, port string) string {
		a, err := d.Address(process, port)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	app, entry := at("app", "http"), at("client-proxy", "to-app")
	if target := d.Target().URL; target != "http://"+entry {
		t.Errorf("the target is %s, want http://%s", target, entry)
	}
	whole := func(to string) string { return "outbound " + to + ", inbound " + app + ", app" }
	for name, want := range map[string]string{
		entry:                whole(entry),               // from this machine through both proxies
		app:                  "inbound " + app + ", app", // past the client's proxy
		at("app", "control"): "control",                  // what we ask ourselves, past both
	} {
		var got string
		await(t, name+" answers", func() bool { got = ask(name); return !strings.Contains(got, "refused") })
		if got != want {
			t.Errorf("%s says %q, want %q", name, got, want)
		}
	}
	dir, err := d.Dir("asker")
	if err != nil {
		t.Fatal(err)
	}
	var said []byte
	await(t, "what was said within the namespace", func() bool { said, err = os.ReadFile(filepath.Join(dir, "said")); return err == nil })
	lines := strings.Split(string(said), "\n")
	for n, want := range []string{whole("203.0.113.9:80"), whole(entry), whole(at("client-proxy", "outbound"))} {
		if lines[n] != want {
			t.Errorf("within the namespace: %q, want %q", lines[n], want)
		}
	}

	supervisor := i.supervisor.cmd.Process.Pid
	if got := links(t, supervisor); len(got) != 1 {
		t.Errorf("links %v, want one", got)
	}
	if got := networksHeld(t, supervisor); got != 3 {
		t.Errorf("the supervisor holds %d networks, want 3", got)
	}
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if got, held := links(t, supervisor), networksHeld(t, supervisor); len(got) > 0 || held > 0 {
		t.Errorf("left are the links %v, and %d networks", got, held)
	}
}

// TestTwoDeploymentsHaveNetworksOfTheirOwn: the same Spec twice, side by side.
func TestTwoDeploymentsHaveNetworksOfTheirOwn(t *testing.T) {
	ctx, i := open(t, options(t))
	seen := map[string]bool{}
	for n := range 2 {
		d, err := i.Deploy(ctx, fmt.Sprint("pods-", n), pods(), nil)
		if err != nil {
			t.Fatal(err)
		}
		address, err := d.Address("app", "http")
		if err != nil {
			t.Fatal(err)
		}
		if seen[address] {
			t.Errorf("both have %s", address)
		}
		seen[address] = true
		await(t, "the way is open", func() bool { return strings.HasSuffix(ask(strings.TrimPrefix(d.Target().URL, "http://")), ", app") })
	}
}

// TestNamespaceOfADeploymentThatFails: nothing of it stays.
func TestNamespaceOfADeploymentThatFails(t *testing.T) {
	ctx, i := open(t, options(t))
	spec := pods()
	spec.Processes = append(spec.Processes, shell("bad", "exit 3"))
	spec.Processes[len(spec.Processes)-1].ReadyURL = "tcp://127.0.0.1:1"
	if _, err := i.Deploy(ctx, "bad", spec, nil); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	supervisor := i.supervisor.cmd.Process.Pid
	if got, held := links(t, supervisor), networksHeld(t, supervisor); len(got) > 0 || held > 0 {
		t.Errorf("left are the links %v, and %d networks", got, held)
	}
}

// TestWithoutRootTheReasonIsTold asks as a user who may make no namespaces.
func TestWithoutRootTheReasonIsTold(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, exe, "pod", "unprivileged").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), string(meshbench.Unavailable)) || !strings.Contains(string(out), "run as root") {
		t.Errorf("%v: %s", err, out)
	}
	if err := CheckNamespaces(); err != nil {
		t.Errorf("as root: %v", err)
	}
}

// TestRecoverRemovesMarkedLinksAlone: a link that has the name but not the
// mark is somebody else's.
func TestRecoverRemovesMarkedLinksAlone(t *testing.T) {
	add := func(name, alias string) {
		l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}
		if err := netlink.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netlink.LinkDel(l) })
		if err := netlink.LinkSetAlias(l, alias); err != nil {
			t.Fatal(err)
		}
	}
	add("mb998", "meshbench 1-1")
	add("mb999", "theirs")
	for _, name := range []string{"mb998", "mb999", "mb997"} {
		if err := removeLink(name, "meshbench 1-1"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := netlink.LinkByName("mb998"); err == nil {
		t.Error("ours is left")
	}
	if _, err := netlink.LinkByName("mb999"); err != nil {
		t.Error("theirs is gone")
	}
	if _, err := parseJournal([]byte(`{"boot_id": "x", "supervisor": {"pid": 7}, "links": ["eth0"]}`)); err == nil {
		t.Error("a journal may name any link")
	}
}

// TestThroughAnotherNamespace: a namespace is reached by way of another, which
// forwards; where it does not, there is no way.
func TestThroughAnotherNamespace(t *testing.T) {
	ctx, i := open(t, options(t))
	spec := meshbench.Spec{
		Processes: []meshbench.Process{{
			Name: "app", Role: meshbench.OtherRole, Runtime: meshbench.Self, Ports: []string{"http", "control"},
			Args:     []string{"pod", "app", "{{address `app` `http`}}", "{{address `app` `control`}}"},
			ReadyURL: "tcp://{{address `app` `http`}}",
		}},
		Entry:      meshbench.PortRef{Process: "app", Port: "http"},
		Namespaces: []meshbench.Namespace{{Name: "client"}, {Name: "app", Processes: []string{"app"}, Through: "client"}},
	}
	d, err := i.Deploy(ctx, "through", spec, nil)
	if err != nil {
		t.Fatal(err)
	}
	address, err := d.Address("app", "http")
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(address); got != "app" {
		t.Errorf("it says %q", got)
	}
	part := netip.MustParseAddr(strings.Split(address, ":")[0])
	routes, err := netlink.RouteGet(net.IP(part.AsSlice()))
	if err != nil || len(routes) != 1 || !routes[0].Gw.Equal(net.IP(part.Prev().AsSlice())) {
		t.Errorf("the route is %v, %v", routes, err)
	}
}
