package store

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Each check returns what is wrong with a text that the operator wrote, in words
// that follow the quoted text, or "" when nothing is.

// Lengths as DNS and Kubernetes have them, in bytes.
const (
	maxNameLen  = 253
	maxLabelLen = 63
)

const (
	wantName  = `want lower-case letters, digits, "-" and "."`
	wantLabel = `want lower-case letters, digits and "-"`
)

// checkName is for what Kubernetes calls a subdomain name (RFC 1123): objects,
// rules and sections.
func checkName(s string) string {
	if len(s) > maxNameLen {
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxNameLen)
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label, isLower) {
			return wantName
		}
	}
	return ""
}

// checkNamespace is for one DNS label.
func checkNamespace(s string) string {
	if len(s) > maxLabelLen {
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxLabelLen)
	}
	if !isLabel(s, isLower) {
		return wantLabel
	}
	return ""
}

// checkKind is for the kind of a reference: an identifier in CamelCase.
func checkKind(s string) string {
	if len(s) > maxLabelLen {
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxLabelLen)
	}
	if !isLabel(s, isAlnum) {
		return `want letters, digits and "-"`
	}
	return ""
}

// checkGroup is for an API group; the empty one is Kubernetes' core.
func checkGroup(s string) string {
	if s == "" {
		return ""
	}
	return checkName(s)
}

// checkHostname is for a name that clients call by, with or without a wildcard.
func checkHostname(s string) string {
	name := strings.TrimPrefix(s, "*.")
	switch {
	case s == "":
		return "want a hostname; leave hostnames out to serve every authority"
	case len(s) > maxNameLen:
		return fmt.Sprintf("%d bytes, limit %d", len(s), maxNameLen)
	case strings.Contains(name, "*"):
		return `want "*" as the whole first label only, as in "*.example.com"`
	case isAddress(s):
		return "want a hostname, not an IP address"
	case strings.Contains(s, ":"):
		return "want a hostname without a port"
	case strings.ContainsFunc(s, isUpperASCII):
		return "want lower case"
	}
	for label := range strings.SplitSeq(name, ".") {
		if len(label) > maxLabelLen {
			return fmt.Sprintf("a label of %d bytes, limit %d", len(label), maxLabelLen)
		}
		if !isLabel(label, isLower) {
			return wantName
		}
	}
	return ""
}

// checkAddress is for "host:port" of an endpoint.
func checkAddress(s string) string {
	host, port, ok := cutPort(s)
	switch {
	case isAddress(s):
		return "want a port after the address, and IPv6 in brackets, as in [::1]:50051"
	case !ok:
		return "want host:port"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
		return "want a port from 1 to 65535"
	}
	if rest, bracketed := strings.CutPrefix(host, "["); bracketed {
		rest, closed := strings.CutSuffix(rest, "]")
		if addr, err := netip.ParseAddr(rest); !closed || err != nil || !addr.Is6() {
			return "want an IPv6 address in the brackets"
		}
		return ""
	}
	return checkServerName(host)
}

// checkEndpoint is checkAddress for what can be dialled, and is one machine.
func checkEndpoint(s string) string {
	if problem := checkAddress(s); problem != "" {
		return problem
	}
	host, _, _ := cutPort(s)
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil { // a name
		return ""
	}
	switch addr = addr.Unmap(); {
	case addr.WithZone("").IsUnspecified():
		return "want the address of one machine: this one stands for every address of its own"
	case addr.IsMulticast(), addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "want the address of one machine, not of several"
	}
	return ""
}

// checkServerName is for a name or an address without a port.
func checkServerName(s string) string {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		return ""
	}
	return checkHost(s)
}

// cutPort cuts at the last colon outside of brackets.
func cutPort(s string) (host, port string, ok bool) {
	at := strings.LastIndexByte(s, ':')
	if at <= 0 || strings.LastIndexByte(s, ']') > at {
		return "", "", false
	}
	return s[:at], s[at+1:], true
}

// checkHost is for a name to be resolved. Underscores are in use inside of
// container networks. A last label of digits alone would be a mistyped address.
func checkHost(host string) string {
	if len(host) > maxNameLen {
		return fmt.Sprintf("a host of %d bytes, limit %d", len(host), maxNameLen)
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if len(label) > maxLabelLen || !isLabel(label, isWordByte) {
			return "want a name or an IP address as the host"
		}
		last = label
	}
	if strings.Trim(last, "0123456789") == "" {
		return "want a valid IPv4 address or a name as the host"
	}
	return ""
}

// isAddress tells whether s is an IP address, in brackets or not.
func isAddress(s string) bool {
	if inside, bracketed := strings.CutPrefix(s, "["); bracketed && strings.IndexByte(s, ']') == len(s)-1 {
		s = strings.TrimSuffix(inside, "]")
	}
	_, err := netip.ParseAddr(s)
	return err == nil
}

// isLabel tells whether s is made of such bytes, neither begins nor ends with "-",
// and is not empty.
func isLabel(s string, ok func(byte) bool) bool {
	if s == "" || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if s[i] != '-' && !ok(s[i]) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isLower(c byte) bool    { return 'a' <= c && c <= 'z' || isDigit(c) }
func isAlnum(c byte) bool    { return isLower(c) || 'A' <= c && c <= 'Z' }
func isWordByte(c byte) bool { return isAlnum(c) || c == '_' }

func isUpperASCII(r rune) bool { return 'A' <= r && r <= 'Z' }

// checkService is for the service of an exact match: what protobuf can name, with
// or without a leading dot, as the Gateway API allows.
func checkService(s string) string {
	for part := range strings.SplitSeq(strings.TrimPrefix(s, "."), ".") {
		if !isIdentifier(part) {
			return `want a protobuf service like "shop.v1.Cart"`
		}
	}
	return ""
}

// checkMethod is for the method of an exact match.
func checkMethod(s string) string {
	if !isIdentifier(s) {
		return `want a protobuf method like "GetCart"`
	}
	return ""
}

func isIdentifier(s string) bool {
	if s == "" || isDigit(s[0]) {
		return false
	}
	for i := range len(s) {
		if !isWordByte(s[i]) {
			return false
		}
	}
	return true
}

// checkFile is for the name of a file.
func checkFile(s string) string {
	if s == "" {
		return "want the name of a file"
	}
	return checkControls(s)
}

// checkEndpointLabel is for what an endpoint says of itself: its zone, its version.
func checkEndpointLabel(s string) string { return checkPrintable(s, maxEndpointLabel) }

// checkPrintable is for a short text of letters, digits and the like, on one line.
func checkPrintable(s string, limit int) string {
	if len(s) > limit {
		return fmt.Sprintf("%d bytes, limit %d", len(s), limit)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return "want printable characters"
	}
	return ""
}

// checkControls is for a text that ends up in a line of output.
func checkControls(s string) string {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return "want no control characters"
	}
	return ""
}
