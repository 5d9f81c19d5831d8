package admin

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	adminv1 "sluice/admin/v1"
)

// setUpLifetime is how long a link can be used. Nothing closes when it ends: the
// next one is made on the machine itself.
const setUpLifetime = 24 * time.Hour

// setUpPath is the page that the link opens. The secret follows "#", which browsers
// do not send: it gets into no log on the way.
const setUpPath = "/setup"

// setUp is the one link that can be used. Its secret is not kept.
type setUp struct {
	Hash    string    `json:"hash"`
	Expires time.Time `json:"expires"`
}

const setUpKey = "set-up"

var errSetUpOver = connect.NewError(connect.CodePermissionDenied,
	errors.New("this link has been used, has ended, or is not the latest; make a new one on the machine itself: sluice admin setup-link"))

// SetUpLink is a one-time link by which the first administrator is made.
type SetUpLink struct {
	URLs    []string // one for each address by which the port can be reached; secret
	Expires time.Time
	Hint    string // how to come to it from elsewhere; may be empty
}

// NeedsSetUp says whether there is no administrator yet.
func (a *Access) NeedsSetUp() (needs bool, err error) {
	err = a.records.View(func(tx RecordsTx) error {
		has, err := hasAdministrator(tx)
		needs = !has
		return err
	})
	return needs, err
}

// SetUpLink makes a new one-time link, and ends earlier ones. The URLs are secret.
func (a *Access) SetUpLink() (*SetUpLink, error) {
	link, err := a.newSetUpLink()
	if err == nil {
		a.audit.write(&adminv1.AuditEntry{Actor: "sluice", Action: "CreateSetUpLink", Reason: "there is no administrator yet"})
	}
	return link, err
}

func (a *Access) newSetUpLink() (*SetUpLink, error) {
	if a.cfg.Addr == nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the admin port is closed: there is nothing to link to"))
	}
	secret, hash := newSecret()
	expires := a.now().Add(setUpLifetime)
	err := a.records.Update(func(tx RecordsTx) error {
		return put(tx, setUpKey, &setUp{Hash: hash, Expires: expires})
	})
	if err != nil {
		return nil, err
	}
	link := &SetUpLink{Expires: expires}
	hosts := reachable(a.cfg.Addr, interfaceAddresses)
	for _, host := range hosts {
		link.URLs = append(link.URLs, a.url(host)+setUpPath+"#"+secret)
	}
	if loopbackOnly(hosts) {
		_, port, _ := net.SplitHostPort(a.cfg.Addr.String())
		link.Hint = fmt.Sprintf("the port can be reached from this machine only; from another, begin with: ssh -L %s:%s %s",
			port, net.JoinHostPort(hosts[0], port), machineName())
	}
	return link, nil
}

func (a *Access) url(host string) string {
	_, port, _ := net.SplitHostPort(a.cfg.Addr.String())
	scheme := "http://"
	if a.cfg.TLS {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}

// useSetUp makes the administrator, which ends the link.
func useSetUp(tx RecordsTx, secret string, acc *account, now time.Time) error {
	if err := checkSetUp(tx, secret, now); err != nil {
		return err
	}
	return createAccount(tx, acc)
}

func checkSetUp(tx RecordsTx, secret string, now time.Time) error {
	link, err := get[setUp](tx, setUpKey)
	if err != nil {
		return err
	}
	if link == nil || !now.Before(link.Expires) ||
		subtle.ConstantTimeCompare([]byte(link.Hash), []byte(hashSecret(secret))) != 1 {
		return errSetUpOver
	}
	return nil
}

// reachable are the hosts by which an address can be called: itself, or where it
// stands for all of the machine's, those. 0.0.0.0 is nothing that one can call.
func reachable(addr net.Addr, own func() []netip.Addr) []string {
	host, _, err := net.SplitHostPort(addr.String())
	if err != nil {
		return []string{"localhost"}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsUnspecified() {
		return []string{host}
	}
	var hosts []string
	for _, own := range own() {
		hosts = append(hosts, own.String())
	}
	return hosts
}

// interfaceAddresses are those of this machine that others may use: the way from
// outside first, loopback last. Link-local ones need a zone, which no browser takes.
func interfaceAddresses() []netip.Addr {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	}
	var found []netip.Addr
	for _, a := range all {
		prefix, err := netip.ParsePrefix(a.String())
		if ip := prefix.Addr().Unmap(); err == nil && !ip.IsLinkLocalUnicast() {
			found = append(found, ip)
		}
	}
	slices.SortStableFunc(found, func(x, y netip.Addr) int { return farFirst(x) - farFirst(y) })
	return found
}

func farFirst(ip netip.Addr) int {
	switch {
	case ip.IsLoopback():
		return 2
	case ip.Is6():
		return 1
	}
	return 0
}

func loopbackOnly(hosts []string) bool {
	return len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h string) bool { return !isLoopback(h) })
}

// isLoopback tells of a host, as in an address to listen on, whether only this
// machine can reach it.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// machineName is for an example that people complete.
func machineName() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "THIS-MACHINE"
}
