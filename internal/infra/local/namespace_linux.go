package local

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/meshbench/meshbench"
)

// A network is the namespaces of one deployment. They are joined by a bridge
// in a namespace of its own, the hub, so that no rule and no setting of this
// machine's own network stands between them, and none of it is changed. One
// link joins the hub to this machine, for those who measure:
//
//	this machine, mbN 198.18.N.1 -- host [hub: bridge br0] pI -- eth0 198.18.N.I [namespace]
//
// The namespaces have no names: the kernel removes them, with the links and
// rules in them, when the supervisor that holds them and the processes in them
// have ended, however that comes. The link's end on this machine goes with its
// other end.
type network struct {
	link       string // its name on this machine
	hub        netns.NsHandle
	namespaces map[string]netns.NsHandle
}

// proxyGroup is the group of the proxies that connections are redirected to;
// by it the rules know the proxies' own. (A user of their own could not read
// their files below a directory that is closed to all but its owner.)
const proxyGroup = 2102

// networks are how many there can be: 198.18.0.0/15, which RFC 2544 sets
// aside for benchmarks, in parts of /24.
const networks = 512

// subnet is the n-th part.
func subnet(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(18 + n>>8), byte(n), 0}), 24)
}

// hostIn is the i-th address of a network; the first is this machine's.
func hostIn(p netip.Prefix, i int) netip.Addr {
	a := p.Addr().As4()
	a[3] = byte(i)
	return netip.AddrFrom4(a)
}

// makeNetwork makes the namespaces and returns the address of each. note is
// called with the name of a link before it is made on this machine; alias
// marks it as ours. On error nothing is left.
func makeNetwork(r networkRequest, alias string, note func(link string) error) (*network, map[string]string, error) {
	n := &network{hub: netns.None(), namespaces: map[string]netns.NsHandle{}}
	addresses, err := n.make(r, alias, note)
	if err != nil {
		n.close()
		return nil, nil, err
	}
	return n, addresses, nil
}

func (n *network) make(r networkRequest, alias string, note func(string) error) (map[string]string, error) {
	if len(r.Namespaces) > 250 {
		return nil, fmt.Errorf("a network has room for 250 namespaces, not for %d", len(r.Namespaces))
	}
	var err error
	if n.hub, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("a network namespace cannot be made: %w", err)
	}
	hub, err := netlink.NewHandleAt(n.hub, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer hub.Close()
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := hub.LinkAdd(bridge); err != nil {
		return nil, fmt.Errorf("a bridge cannot be made: %w", err)
	}
	if err := hub.LinkSetUp(bridge); err != nil {
		return nil, err
	}
	part, err := n.join(hub, bridge, alias, note)
	if err != nil {
		return nil, err
	}
	addresses := map[string]string{}
	for i, s := range r.Namespaces {
		at := hostIn(part, i+2)
		if err := n.add(hub, bridge, s, fmt.Sprintf("p%d", i+2), at, part); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", s.Name, err)
		}
		addresses[s.Name] = at.String()
	}
	for i, s := range r.Namespaces {
		if s.Through == "" {
			continue
		}
		by := slices.IndexFunc(r.Namespaces, func(o namespaceRequest) bool { return o.Name == s.Through })
		if by < 0 || by == i {
			return nil, fmt.Errorf("namespace %s: there is no other one called %q", s.Name, s.Through)
		}
		if err := n.detour(s, hostIn(part, 1), hostIn(part, i+2), hostIn(part, by+2)); err != nil {
			return nil, fmt.Errorf("namespace %s, through %s: %w", s.Name, s.Through, err)
		}
	}
	return addresses, nil
}

// detour leads what goes between this machine and a namespace through
// another, which forwards it.
func (n *network) detour(r namespaceRequest, host, at, by netip.Addr) error {
	if err := forward(n.namespaces[r.Through]); err != nil {
		return err
	}
	way := func(to netip.Addr, link int) *netlink.Route {
		return &netlink.Route{LinkIndex: link, Dst: ipNet(to, netip.PrefixFrom(to, 32)), Gw: net.IP(by.AsSlice())}
	}
	near, err := netlink.LinkByName(n.link)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(way(at, near.Attrs().Index)); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(n.namespaces[r.Name], unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	l, err := inside.LinkByName("eth0")
	if err != nil {
		return err
	}
	return inside.RouteAdd(way(host, l.Attrs().Index))
}

// forward makes a namespace forward packets, and not tell senders that there
// is a shorter way.
func forward(ns netns.NsHandle) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, see newNamespace
		if err := netns.Set(ns); err != nil {
			done <- err
			return
		}
		for _, s := range [][2]string{{"ip_forward", "1"}, {"conf/all/send_redirects", "0"}, {"conf/eth0/send_redirects", "0"}} {
			// The settings are those of the thread that opens the file.
			if err := os.WriteFile("/proc/sys/net/ipv4/"+s[0], []byte(s[1]), 0); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return <-done
}

// join links the hub to this machine and returns the addresses of the network:
// those of the first part that has no route here and whose link's name is free.
func (n *network) join(hub *netlink.Handle, bridge netlink.Link, alias string, note func(string) error) (netip.Prefix, error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, err
	}
	for i := range networks {
		part := subnet(i)
		if routed(routes, part) {
			continue
		}
		name := fmt.Sprintf("mb%d", i)
		if err := note(name); err != nil {
			return netip.Prefix{}, err
		}
		err := netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "host", PeerNamespace: netlink.NsFd(n.hub),
		})
		if errors.Is(err, unix.EEXIST) {
			continue // another run has it, or has just taken it
		}
		if err != nil {
			return netip.Prefix{}, fmt.Errorf("a pair of links cannot be made: %w", err)
		}
		n.link = name
		return part, n.raise(hub, bridge, alias, hostIn(part, 1), part)
	}
	return netip.Prefix{}, errors.New("all networks of 198.18.0.0/15 are in use")
}

func (n *network) raise(hub *netlink.Handle, bridge netlink.Link, alias string, at netip.Addr, part netip.Prefix) error {
	far, err := hub.LinkByName("host")
	if err != nil {
		return err
	}
	if err := hub.LinkSetMaster(far, bridge); err != nil {
		return err
	}
	if err := hub.LinkSetUp(far); err != nil {
		return err
	}
	near, err := netlink.LinkByName(n.link)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetAlias(near, alias); err != nil {
		return err
	}
	if err := netlink.AddrAdd(near, &netlink.Addr{IPNet: ipNet(at, part)}); err != nil {
		return err
	}
	return netlink.LinkSetUp(near)
}

// add makes one namespace, with a link to the bridge.
func (n *network) add(hub *netlink.Handle, bridge netlink.Link, r namespaceRequest, link string, at netip.Addr, part netip.Prefix) error {
	ns, err := newNamespace()
	if err != nil {
		return err
	}
	n.namespaces[r.Name] = ns
	if err := hub.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: link}, PeerName: "eth0", PeerNamespace: netlink.NsFd(ns)}); err != nil {
		return err
	}
	far, err := hub.LinkByName(link)
	if err != nil {
		return err
	}
	if err := hub.LinkSetMaster(far, bridge); err != nil {
		return err
	}
	if err := hub.LinkSetUp(far); err != nil {
		return err
	}
	inside, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer inside.Close()
	for _, name := range []string{"lo", "eth0"} {
		l, err := inside.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "eth0" {
			if err := inside.AddrAdd(l, &netlink.Addr{IPNet: ipNet(at, part)}); err != nil {
				return err
			}
		}
		if err := inside.LinkSetUp(l); err != nil {
			return err
		}
		if name == "eth0" {
			// Any address has a way, so that the rules get to see it. This
			// machine forwards nothing.
			if err := inside.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.IP(hostIn(part, 1).AsSlice())}); err != nil {
				return err
			}
		}
	}
	if r.Redirect == nil {
		return nil
	}
	if err := redirect(ns, *r.Redirect, at); err != nil {
		return fmt.Errorf("the rules that redirect connections cannot be made: %w", err)
	}
	return nil
}

// redirect makes the rules of a pod, in the words of iptables:
//
//	PREROUTING  tcp, one of Direct         RETURN
//	PREROUTING  tcp, one of Services       REDIRECT to Outbound
//	PREROUTING  tcp                        REDIRECT to Inbound
//	OUTPUT      group of the proxy         RETURN
//	OUTPUT      tcp to one of Services     REDIRECT to Outbound
//	OUTPUT      out of lo                  RETURN
//	OUTPUT      tcp                        REDIRECT to Outbound
//
// They are given to the kernel (nf_tables) directly: no program is needed.
func redirect(ns netns.NsHandle, r redirectRequest, own netip.Addr) error {
	c, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "meshbench"})
	prerouting := c.AddChain(&nftables.Chain{
		Name: "prerouting", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest,
	})
	output := c.AddChain(&nftables.Chain{
		Name: "output", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest,
	})
	rule := func(chain *nftables.Chain, parts ...[]expr.Any) {
		var all []expr.Any
		for _, p := range parts {
			all = append(all, p...)
		}
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: all})
	}
	for _, p := range r.Direct {
		rule(prerouting, tcp(), toPort(p), accept())
	}
	for _, p := range r.Services {
		rule(prerouting, tcp(), toPort(p), redirectTo(r.Outbound))
	}
	rule(prerouting, tcp(), redirectTo(r.Inbound))

	rule(output, []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKGID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(r.Group)},
	}, accept())
	for _, p := range r.Services {
		rule(output, tcp(), []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: own.AsSlice()},
		}, toPort(p), redirectTo(r.Outbound))
	}
	rule(output, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: interfaceName("lo")},
	}, accept())
	rule(output, tcp(), redirectTo(r.Outbound))
	return c.Flush()
}

func tcp() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
	}
}

func toPort(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
	}
}

func redirectTo(port uint16) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
		&expr.Redir{RegisterProtoMin: 1},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// interfaceName is a name as the kernel compares it.
func interfaceName(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}

// close gives everything back. The namespaces end with the last process in
// them.
func (n *network) close() {
	for name, ns := range n.namespaces {
		ns.Close()
		delete(n.namespaces, name)
	}
	if n.link != "" {
		if l, err := netlink.LinkByName(n.link); err == nil {
			_ = netlink.LinkDel(l) // gone with its other end, else
		}
		n.link = ""
	}
	if n.hub.IsOpen() {
		n.hub.Close()
	}
}

// newNamespace makes a network namespace that nothing but the handle holds.
// It is made by a thread of its own, which ends with it: threads of Go's pool
// all stay in this machine's network.
func newNamespace() (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- result{netns.None(), err}
			return
		}
		ns, err := netns.GetFromPath("/proc/thread-self/ns/net")
		done <- result{ns, err}
	}()
	r := <-done
	return r.ns, r.err
}

// routed tells whether a route other than the default one goes to a part of
// p, or p is part of it.
func routed(routes []netlink.Route, p netip.Prefix) bool {
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		ones, _ := r.Dst.Mask.Size()
		if ok && ones > 0 && netip.PrefixFrom(a, ones).Overlaps(p) {
			return true
		}
	}
	return false
}

func ipNet(a netip.Addr, p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(a.AsSlice()), Mask: net.CIDRMask(p.Bits(), 32)}
}

// removeLink removes a link of this machine that a killed supervisor has left
// behind, if there is one and it is marked as its.
func removeLink(name, alias string) error {
	l, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	if l.Attrs().Alias != alias {
		return nil // somebody else's, meanwhile
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// CheckNamespaces makes a network of one namespace with its rules and removes
// it. The error, of code Unavailable, says why subjects that need namespaces
// cannot be had here.
func CheckNamespaces() error {
	n, _, err := makeNetwork(networkRequest{Name: "check", Namespaces: []namespaceRequest{{
		Name: "check", Redirect: &redirectRequest{Group: proxyGroup, Inbound: 1, Outbound: 2},
	}}}, "meshbench check", func(string) error { return nil })
	if err != nil {
		return noNamespaces(err)
	}
	n.close()
	return nil
}

func noNamespaces(err error) *meshbench.Error {
	e := meshbench.Errorf(meshbench.Unavailable, "network namespaces cannot be had: %w", err)
	if os.Geteuid() != 0 {
		return e.WithHint("subjects that run as in pods need them: run as root")
	}
	return e.WithHint("subjects that run as in pods need them: the kernel must have network namespaces, veth, bridge and nf_tables, and allow them (CAP_SYS_ADMIN, CAP_NET_ADMIN)")
}
