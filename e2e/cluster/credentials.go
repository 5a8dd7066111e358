package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// credentials writes, for each component, NAME.crt, NAME.key and NAME.kubeconfig: every one with the user and group
// that Kubernetes' own roles are bound to, so that no component has more rights here than in a real cluster.
func (c *cluster) credentials() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := certificate(pkix.Name{CommonName: "cluster"})
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	if err := c.write("ca", ca, ca, caKey, caKey); err != nil {
		return err
	}
	for name, subject := range map[string]pkix.Name{
		"kube-apiserver":          {CommonName: "kube-apiserver"},
		"kubelet":                 {CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}},
		"kube-controller-manager": {CommonName: "system:kube-controller-manager"},
		"kube-scheduler":          {CommonName: "system:kube-scheduler"},
		"kube-proxy":              {CommonName: "system:kube-proxy"},
		"admin":                   {CommonName: "admin", Organization: []string{"system:masters"}},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		leaf := certificate(subject)
		leaf.KeyUsage = x509.KeyUsageDigitalSignature
		leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
		leaf.DNSNames = []string{"localhost", "kubernetes.default.svc", "kubernetes.default", "kubernetes.default.svc." + dnsDomain}
		leaf.IPAddresses = []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(nodeAddress), net.ParseIP(apiService)}
		if err := c.write(name, leaf, ca, key, caKey); err != nil {
			return err
		}
		kubeconfig := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: local
clusters: [{name: local, cluster: {server: "https://%s:6443", certificate-authority: %q}}]
users: [{name: %s, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: local, context: {cluster: local, user: %s}}]
`, nodeAddress, c.path("ca.crt"), name, c.path(name+".crt"), c.path(name+".key"), name)
		if err := os.WriteFile(c.path(name+".kubeconfig"), []byte(kubeconfig), 0o600); err != nil {
			return err
		}
	}
	return c.serviceAccountKeys()
}

func (c *cluster) serviceAccountKeys() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	return errors.Join(c.writeKey("service-accounts.key", key), c.writePEM("service-accounts.pub", "PUBLIC KEY", public))
}

func certificate(subject pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62)) // rand.Reader never fails: the runtime aborts instead
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 7),
	}
}

func (c *cluster) write(name string, leaf, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		return err
	}
	return errors.Join(c.writePEM(name+".crt", "CERTIFICATE", der), c.writeKey(name+".key", key))
}

func (c *cluster) writeKey(name string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return c.writePEM(name, "EC PRIVATE KEY", der)
}

func (c *cluster) writePEM(name, kind string, der []byte) error {
	return os.WriteFile(c.path(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
