# Copyright (c) 2026, the fleet.imaging contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of every module that works with the image store."""


class ModuleDocFragment:
    """Documentation of the option that selects the store."""

    DOCUMENTATION = r"""
options:
  store:
    description:
      - The image store. A folder on the controller, which a capture or an import creates with mode 0700 if necessary.
      - Or C(https://HOST/FOLDER), from which images are restored and verified, and into which nothing is written. The server must serve ranges. Its
        images can't be listed.
      - Or C(s3://BUCKET/PREFIX), for which the controller needs boto3 (1.36 or newer to write), configured in the usual way (C(AWS_PROFILE),
        C(AWS_ACCESS_KEY_ID), C(AWS_REGION) and so on).
      - A laptop that is restored reads the image from an HTTPS server or from S3 itself. If it can't, the controller reads it and passes it on.
    type: str
    default: ~/fleet-images
  store_ca:
    description:
      - File on the controller with the certificates (PEM) by which the server's certificate is checked. If empty, those of the system, on the
        controller and on the laptop.
    type: path
    default: ""
  store_certificate:
    description:
      - File on the controller with a client's certificate (PEM) for an HTTPS server that asks for one, empty for none. The laptop gets it, with its
        key, for the time of a restore.
    type: path
    default: ""
  store_key:
    description:
      - File on the controller with the key (PEM, without a password) of O(store_certificate). If empty, the key is in O(store_certificate).
    type: path
    default: ""
  store_token:
    description:
      - File on the controller with a bearer token for an HTTPS server, empty for none. The laptop gets the token for the time of a restore. It is
        sent to no other server that the first one redirects to.
    type: path
    default: ""
  store_endpoint:
    description:
      - URL of a server with the API of S3. If empty, the one that boto3 is configured for, by default Amazon's.
    type: str
    default: ""
  store_staging:
    description:
      - Folder on the controller for reports, and for images while they are captured or imported, if O(store) is not a folder. It needs as much
        space as such an image. An image whose upload broke off stays there until a later run has uploaded the rest.
    type: path
    default: ~/fleet-images
"""
