package wire

import "testing"

func TestCodeSetHasWhatIsNamed(t *testing.T) {
	set := CodesNamed([]string{"UNAVAILABLE", "CANCELLED", "unavailable", "NO_SUCH"})
	for code := range Code(64) {
		if want := code == Unavailable || code == Canceled; set.Has(code) != want {
			t.Errorf("%v is in the set: %v, want %v", code, !want, want)
		}
	}
	if CodesNamed([]string(nil)) != 0 {
		t.Error("no names are no codes")
	}
}
