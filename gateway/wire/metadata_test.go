package wire

import (
	"encoding/base64"
	"strings"
	"testing"
)

func TestIsBinLooksAtTheEndOfTheName(t *testing.T) {
	for name, want := range map[string]bool{
		"grpc-status-details-bin": true, "x-bin": true, "-bin": true, "x-bind": false, "bin": false, "": false,
	} {
		if got := IsBin(name); got != want {
			t.Errorf("IsBin(%q) = %v, want %v", name, got, want)
		}
	}
}

func TestValidBinTakesBase64PaddedOrNot(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     bool
	}{
		{"empty", "", true},
		{"whole quantum", "Zm9v", true},
		{"two digits unpadded", "Zg", true},
		{"two digits padded", "Zg==", true},
		{"three digits unpadded", "Zm8", true},
		{"three digits padded", "Zm8=", true},
		{"whole alphabet", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", true},
		{"bits left over", "Zh", true},
		{"list", "Zg==,Zm8,Zm9v", true},
		{"list with blanks", "Zg== ,\tZm8, Zm9v", true},
		{"empty members", ",Zg,", true},

		{"one digit", "Z", false},
		{"five digits", "Zm9vZ", false},
		{"padding missing one", "Zg=", false},
		{"padding only", "====", false},
		{"one digit padded", "Z===", false},
		{"two paddings only", "==", false},
		{"padding within", "Zg==Zg==", false},
		{"URL alphabet", "_-8=", false},
		{"line break within", "Zm\n9", false},
		{"blank within", "Zm 9v", false},
		{"not ASCII", "Zmé", false},
		{"bad member", "Zg==,Z,Zm9v", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ValidBin(tc.in); got != tc.want {
				t.Errorf("ValidBin(%q) = %v, want %v", tc.in, got, tc.want)
			}
		})
	}
}

func FuzzValidBin(f *testing.F) {
	for _, s := range []string{"", "Zg", "Zg==", "Zg=", "Zm8=", "Zm9v", "Z", "====", "Zg,Zg==", ",", "Zm\n9v", " Zg"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidBin(s), decodesAsBin(s); got != want {
			t.Fatalf("ValidBin(%q) = %v, decoding says %v", s, got, want)
		}
	})
}

// decodesAsBin asks the standard library, which skips line breaks: a field value
// cannot hold them, and ValidBin refuses them.
func decodesAsBin(s string) bool {
	if strings.ContainsAny(s, "\r\n") {
		return false
	}
	for item := range strings.SplitSeq(s, ",") {
		item = strings.Trim(item, " \t")
		if _, err := base64.StdEncoding.DecodeString(item); err == nil {
			continue
		}
		if _, err := base64.RawStdEncoding.DecodeString(item); err != nil {
			return false
		}
	}
	return true
}
