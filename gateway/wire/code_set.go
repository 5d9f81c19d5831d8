package wire

import "slices"

// CodeSet is a set of status codes, a bit for each.
type CodeSet uint32

// CodesNamed are the codes of these canonical names. Other names mean none.
func CodesNamed[S ~string](names []S) (set CodeSet) {
	for code := range Code(NumCodes) {
		if slices.Contains(names, S(code.String())) {
			set |= 1 << code
		}
	}
	return set
}

// Has tells whether a code, which may be any number, is in the set.
func (s CodeSet) Has(c Code) bool { return c < NumCodes && s&(1<<c) != 0 }
