package wire

import "strings"

// inMethodPath are the bytes a service or a method may be written in: what
// RFC 3986, section 3.3 allows in a path segment, without "%" and ";". So nothing
// that a server behind us could decode, fold, cut or normalise gets through, and
// the path that is routed is the path that is forwarded. ("/", "?", "#", "\",
// blanks, controls and what is not ASCII are not in that set to begin with.)
var inMethodPath = func() (set [256]bool) {
	const marks = "-._~" + "!$&'()*+,=" + ":@"
	for _, chars := range []string{
		"abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", marks,
	} {
		for i := range len(chars) {
			set[chars[i]] = true
		}
	}
	return set
}()

// ValidPath tells whether path is what gRPC calls by: "/" service "/" method,
// exactly two segments, and nothing in them that anyone might read differently.
// Such a path has one canonical form, itself.
func ValidPath(path string) bool {
	_, _, ok := SplitPath(path)
	return ok
}

// SplitPath takes a valid path apart; both parts are substrings of it. On any
// other path it is not ok and both are empty.
func SplitPath(path string) (service, method string, ok bool) {
	if path == "" || path[0] != '/' {
		return "", "", false
	}
	service, method, ok = strings.Cut(path[1:], "/")
	if !ok || !validSegment(service) || !validSegment(method) {
		return "", "", false
	}
	return service, method, true
}

// validSegment refuses the empty segment, the one that means "here" and any that
// holds the one that means "up".
func validSegment(s string) bool {
	if s == "" || s == "." {
		return false
	}
	for i := range len(s) {
		if !inMethodPath[s[i]] || s[i] == '.' && i > 0 && s[i-1] == '.' {
			return false
		}
	}
	return true
}
