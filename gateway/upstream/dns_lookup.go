package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/store"
)

// maxTargets is how many targets of SRV records are asked about in one look-up.
const maxTargets = 1000

var (
	errAbsent = errors.New("no such name")
	errEmpty  = errors.New("the name has no such records")
)

// lookUp implements resolver.
func (c *nameClient) lookUp(ctx context.Context, d *store.DNS, before []found) (finding, error) {
	servers, err := c.servers(d.Server)
	if err != nil {
		return finding{}, err
	}
	s := &search{client: c, servers: servers.servers, before: before, keep: maxKeep}
	var list []found
	if d.SRV != "" {
		list, err = s.services(ctx, &servers, d.SRV)
	} else {
		list, err = s.host(ctx, &servers, d.Name, uint16(d.Port))
	}
	s.finding.found, s.finding.keep = list, s.keep
	return s.finding, err
}

// search is one look-up on its way.
type search struct {
	client  *nameClient
	servers []string
	before  []found // of the look-up before
	keep    time.Duration
	finding finding
}

// host is what the addresses of a name are, at a port. A short name may stand for several:
// the first that has addresses counts.
func (s *search) host(ctx context.Context, servers *nameServers, name string, port uint16) ([]found, error) {
	names, err := servers.names(name)
	if err != nil {
		return nil, err
	}
	for _, full := range names {
		var list []netip.AddrPort
		if list, err = s.addresses(ctx, full, plain(name), port); err == nil {
			return spread(list, plain(name), 1), nil
		}
		if !errors.Is(err, errAbsent) && !errors.Is(err, errEmpty) {
			break
		}
	}
	return nil, err
}

// plain is a name without its last dot.
func plain(name string) string { return strings.TrimSuffix(name, ".") }

func spread(list []netip.AddrPort, name string, weight uint32) []found {
	out := make([]found, len(list))
	for i, a := range list {
		out[i] = found{a.String(), name, weight}
	}
	return out
}

// addresses are those of both families. Of a family that nobody answers for, the name
// keeps those that it had, if it has others; it had them as written.
func (s *search) addresses(ctx context.Context, name, written string, port uint16) ([]netip.AddrPort, error) {
	var list []netip.AddrPort
	var faults [2]error
	for i, kind := range []record{recordA, recordAAAA} {
		r, err := s.resolve(ctx, question{name, kind})
		if err != nil {
			faults[i] = err
			if ctx.Err() != nil || errors.Is(err, errAbsent) {
				return nil, err
			}
			continue
		}
		for _, a := range r.addresses {
			list = append(list, netip.AddrPortFrom(a, port))
		}
	}
	for i, err := range faults {
		other := faults[1-i]
		if err == nil || errors.Is(err, errEmpty) {
			continue
		}
		if other != nil { // one is down, the other says nothing either
			return nil, err
		}
		s.finding.remark(fmt.Sprintf("asking for %v of %q: %v", [...]record{recordA, recordAAAA}[i], name, err))
		list = append(list, s.had(written, port, i == 1)...)
	}
	if len(list) == 0 {
		return nil, errEmpty
	}
	return list, nil
}

// had are the addresses of one family that a name had in the look-up before.
func (s *search) had(name string, port uint16, six bool) (list []netip.AddrPort) {
	for _, f := range s.before {
		at, err := netip.ParseAddrPort(f.address)
		if err == nil && f.name == name && at.Port() == port && at.Addr().Is6() == six {
			list = append(list, at)
		}
	}
	return list
}

// resolve asks one question, and on along aliases.
func (s *search) resolve(ctx context.Context, q question) (reply, error) {
	for aliases := 0; ; {
		r, err := s.client.ask(ctx, s.servers, q)
		if err != nil {
			return reply{}, err
		}
		if r.absent {
			return reply{}, errAbsent
		}
		s.keep = min(s.keep, r.keep)
		if r.alias == "" {
			if len(r.addresses)+len(r.services) == 0 {
				return reply{}, errEmpty
			}
			return r, nil
		}
		if aliases += max(r.aliases, 1); aliases > maxAliases {
			return reply{}, errAliases
		}
		q.name = r.alias
	}
}

// services are the addresses that the SRV records of a name lead to: of those with the
// lowest priority of which any has an address. RFC 2782.
func (s *search) services(ctx context.Context, servers *nameServers, name string) ([]found, error) {
	names, err := servers.names(name)
	if err != nil {
		return nil, err
	}
	var r reply
	for _, full := range names {
		if r, err = s.resolve(ctx, question{full, recordSRV}); !errors.Is(err, errAbsent) && !errors.Is(err, errEmpty) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	for list := byPriority(r.services); len(list) > 0; {
		n := 1
		for n < len(list) && list[n].priority == list[0].priority {
			n++
		}
		targets, err := s.targets(ctx, list[:n])
		if err != nil {
			return nil, err
		}
		if len(targets) > 0 {
			return shares(targets), nil
		}
		list = list[n:]
	}
	return nil, errors.New("no target of its records has an address")
}

// byPriority orders services, the lowest first, each once, and leaves out what says that
// there is none.
func byPriority(list []service) []service {
	slices.SortFunc(list, func(a, b service) int {
		if a.priority != b.priority {
			return int(a.priority) - int(b.priority)
		}
		if c := strings.Compare(a.target, b.target); c != 0 {
			return c
		}
		return int(a.port) - int(b.port)
	})
	list = slices.CompactFunc(list, func(a, b service) bool {
		return a.target == b.target && a.port == b.port && a.priority == b.priority
	})
	return slices.DeleteFunc(list, func(v service) bool { return v.target == "." || v.target == "" })
}

// target is one service and its addresses.
type target struct {
	service
	at []netip.AddrPort
}

// targets asks for the addresses of services. One that nobody answers for keeps those that
// it had; one that has none is left out.
func (s *search) targets(ctx context.Context, list []service) ([]target, error) {
	if len(list) > maxTargets {
		s.finding.remark(strconv.Itoa(len(list)) + " targets came, the limit is " + strconv.Itoa(maxTargets) + ": the others are left out")
		list = list[:maxTargets]
	}
	var out []target
	for _, v := range list {
		name := plain(v.target)
		at, err := s.addresses(ctx, v.target, name, v.port)
		switch {
		case ctx.Err() != nil:
			return nil, fmt.Errorf("asking for target %q: %w", v.target, err)
		case err != nil:
			s.finding.remark(fmt.Sprintf("target %q: %v", v.target, err))
			if !errors.Is(err, errAbsent) && !errors.Is(err, errEmpty) {
				at = append(s.had(name, v.port, false), s.had(name, v.port, true)...)
			}
		}
		if len(at) > 0 {
			out = append(out, target{v, at})
		}
	}
	return out, nil
}

// shareUnit is what the weights of targets are multiplied by where one has to be shared
// among addresses, or stands for next to nothing.
const shareUnit = 100

// shares gives each address its part of its target's weight. A weight of zero is not that
// of an endpoint which takes nothing, but a very small one: RFC 2782.
func shares(targets []target) []found {
	even, unit := true, uint32(1)
	for _, t := range targets {
		even = even && t.weight == targets[0].weight && len(t.at) == len(targets[0].at)
		if t.weight == 0 || len(t.at) > 1 {
			unit = shareUnit
		}
	}
	var out []found
	for _, t := range targets {
		weight := uint32(1)
		if !even {
			weight = max(1, uint32(t.weight)*unit/uint32(len(t.at)))
		}
		out = append(out, spread(t.at, plain(t.target), weight)...)
	}
	return out
}
